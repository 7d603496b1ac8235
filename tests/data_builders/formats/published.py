"""Files in the layout of each published set, content invented: name, text or bytes, and what the first record says."""

import json

ROW = {"instruction": "Which sound comes last?", "input": "", "audio_id": "k 1.flac", "output": "A door."}
HEARD = {**ROW, "input": "good morning", "dataset": "mine", "task": "temporal", "weight": 0.5}
DAQA_ROW = {
    "set": "val",
    "audio_index": 7,
    "audio_filename": "s_000007.wav",
    "question_template": "compare_loudness",
    "question": "Was the dog quieter?",
    "answer": "yes",
    "answer_token": "yes",
}
SALMONN_ROWS = [
    {"path": "a.flac", "text": "hello there", "task": "asr"},
    {"path": "a.flac", "text": "a fox", "task": "QA", "Q": "What walks?", "expand_wav": ["b.flac"]},
]
PARTS = [{"type": "audio", "audio": "a.wav", "sampling_rate": 16000}, {"type": "text", "text": "What?"}]


def lines(*rows):
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"


PUBLISHED = {
    "table": (
        "mine.csv",
        "\ufefffile,question,answer,split,mood\ncalls/1.wav|calls/2.wav,Same?,no,test,calm\n",
        (("calls/1.wav", "calls/2.wav"), "Same?", "no", "test"),
    ),
    "daqa": (
        "daqa_val.json",
        json.dumps({"info": {"set": "val", "version": "1.0"}, "questions": [DAQA_ROW]}),
        (("s_000007.wav",), "Was the dog quieter?", "yes", "validation"),
    ),
    "audiosetcaps_qa": (
        "AudioSetCaps_QA.csv",
        "id,Q&A captions 1,Q&A captions 2,Q&A captions 3\n_ab-c_4_10,A bell.,No speech.,\n"
        '_x,"Question: What? Answer: A bell, far off.",,\n',
        (("_ab-c_4_10.wav",), None, "No speech.", "train"),
    ),
    "speech_instruct": (
        "cross_modal.jsonl",
        lines({"prefix": "Be kind.", "plain_text": "[Human]: Say it <sosp><12><3><eosp><eoh> [SpeechGPT]: hello<eoa>"}),
        ((), "Say it <sosp><12><3><eosp>", "hello", "train"),
    ),
    "clotho_aqa": (
        "clotho_aqa_val.csv",
        "file_name,QuestionText,answer,confidence\nlake (1), O&#39;B.wav,Is water moving?,yes,maybe\n".replace(
            "lake (1), O&#39;B.wav", '"lake (1), O&#39;B.wav"'
        )
        + "t34t[1].wav,How many?,THREE,yes\n",
        (("lake (1), O&#39;B.wav",), "Is water moving?", "yes", "validation"),
    ),
    "mclotho_aqa": (
        "binary_test_french_majority.csv",
        "file_name,QuestionText,answer\r\nlac 2.Wav.wav,Est-ce à l'intérieur?,Non\r\n".encode("cp1252"),
        (("lac 2.Wav.wav",), "Est-ce à l'intérieur?", "Non", "test"),
    ),
    "openaqa": (
        "openaqa.json",
        json.dumps([ROW, HEARD], indent=1),
        (("k 1.flac",), "Which sound comes last?", "A door.", "train"),
    ),
    "compa_r": (
        "compa_r_test.json",
        json.dumps(
            [{"question": "Why?", "answer": "Rain.", "audio_filename": "r.wav", "metadata": {"t": [0, 1]}}, ROW]
        ),
        (("r.wav",), "Why?", "Rain.", "test"),
    ),
    "audio_dialogues": (
        "dialogues.json",
        json.dumps(
            [
                {
                    "id": "yt1",
                    "dialogue": [{"user": "What?", "assistant": "A bell."}, {"user": "Loud?", "assistant": "No."}],
                },
                {"id": "yt2", "audio": ["a.wav", "b.wav"], "dialogue": [{"user": "Differ?", "assistant": "Yes."}]},
            ]
        ),
        (("yt1.wav",), "Loud?", "No.", "train"),
    ),
    "music_qa": (
        "FinetuneMusicQA.json",
        json.dumps(
            [
                {
                    "audio_name": "000042.wav",
                    "conversation": [{"from": "human", "value": "Which leads?"}, {"from": "gpt", "value": "A cello."}],
                }
            ]
        ),
        (("000042.wav",), "Which leads?", "A cello.", "train"),
    ),
    "ltu": ("all_mix.json", json.dumps([ROW]), (("k 1.flac",), "Which sound comes last?", "A door.", "train")),
    "salmonn": (
        "stage1_train.json",
        json.dumps({"annotation": SALMONN_ROWS}, indent=2),
        (("a.flac",), "Write down what is said.", "hello there", "train"),
    ),
    "slam_llm": (
        "train.jsonl",
        lines(
            {"key": "u1", "source": "a.wav", "target": "hello"},
            {"key": "u2", "task": "ASR", "path": "x.ark:17", "target": "there"},
        ),
        (("a.wav",), "Write down what is said.", "hello", "train"),
    ),
    "audio_flamingo": (
        "clotho_test.json",
        json.dumps(
            {
                "split": "test",
                "split_path": "wavs/test",
                "flamingo_task": "AQA",
                "total_num": 1,
                "data": {"0": {"name": "a.wav", "prompt": "What?", "output": "Wind."}},
            }
        ),
        (("wavs/test/a.wav",), "What?", "Wind.", "test"),
    ),
    "llava": (
        "conversations.json",
        json.dumps(
            [
                {
                    "id": 3,
                    "audio": "a.wav",
                    "conversations": [{"from": "human", "value": "<audio>\nWhat?"}, {"from": "gpt", "value": "Wind."}],
                }
            ]
        ),
        (("a.wav",), "What?", "Wind.", "train"),
    ),
    "ms_swift": (
        "swift_val.jsonl",
        lines(
            {
                "messages": [{"role": "user", "content": "<audio>What?"}, {"role": "assistant", "content": "Wind."}],
                "audios": ["a.wav"],
                "rejected_response": "Rain.",
            }
        ),
        (("a.wav",), "What?", "Wind.", "validation"),
    ),
    "hf_messages": (
        "hf.jsonl",
        lines({"messages": [{"role": "user", "content": PARTS}, {"role": "assistant", "content": "Wind."}]}),
        (("a.wav",), "What?", "Wind.", "train"),
    ),
}

"""The Sonic Pi samples: only names that say what is heard, two takes of one drum in one group, broken files listed."""

from invented_corpora import wav_bytes

from data_builders.debs import Fetched
from data_builders.sources.sonic_pi import LABELS, read_clips

README = b"* `:bd_808` - http://freesound.org/people/x/sounds/1/\n* `:perc_bell_2`- https://freesound.org/people/y/sounds/2/\n"


def package(folder, names, broken=()):
    root = folder / "usr/share/sonic-pi/samples"
    root.mkdir(parents=True)
    for name in names:
        (root / f"{name}.flac").write_bytes(b"no audio" if name in broken else wav_bytes(0.5, 44_100))
    (root / "README.md").write_bytes(README)
    members = tuple(str(path.relative_to(folder)) for path in sorted(root.iterdir()))
    return {"sonic-pi-samples": Fetched("sonic-pi-samples", "1", "0", folder, members)}


def test_names_become_labels_with_their_freesound_pages(tmp_path):
    fetched = package(tmp_path, ["bd_808", "perc_bell2", "elec_twang"])
    clips = {clip.id: clip for clip in read_clips(fetched, 0)[0]}
    assert set(clips) == {"sonic-pi-bd-808", "sonic-pi-perc-bell2"}
    assert clips["sonic-pi-bd-808"].label == "kick drum"
    assert clips["sonic-pi-perc-bell2"].provenance["freesound"].endswith("/sounds/2/")


def test_two_takes_of_one_drum_are_one_group(tmp_path):
    names = ["drum_tom_hi_hard", "drum_tom_hi_soft", "drum_tom_lo_soft", "loop_amen", "loop_amen_full", "bass_hard_c"]
    groups = {clip.id: clip.group for clip in read_clips(package(tmp_path, names), 0)[0]}
    assert groups["sonic-pi-drum-tom-hi-hard"] == groups["sonic-pi-drum-tom-hi-soft"]
    assert groups["sonic-pi-loop-amen"] == groups["sonic-pi-loop-amen-full"]
    assert len(set(groups.values())) == 4


def test_a_broken_file_and_an_absent_one_are_listed(tmp_path):
    clips, skipped = read_clips(package(tmp_path, ["bd_808", "bd_ada"], broken=["bd_ada"]), 0)
    reasons = {entry.id: entry.reason for entry in skipped}
    assert [clip.id for clip in clips] == ["sonic-pi-bd-808"]
    assert reasons["sonic-pi-bd-ada"] != reasons["sonic-pi-bd-fat"] == "not in this version of the package"


def test_no_name_has_two_labels():
    names = [name for members in LABELS.values() for name in members.split()]
    assert len(names) == len(set(names))

"""The samples of Sonic Pi: 165 short recordings of drums, tabla, synthesisers and everyday sounds, 44.1 kHz, all CC0.

Package: sonic-pi-samples. The file name is the label; the README beside the files maps each to its freesound entry.
Only names that say what is heard become labels: `misc_cineboom`, `elec_twang` or `loop_garzul` say nothing that a
listener could answer. A label with one recording cannot be held out and is used in training scenes only.
"""

from __future__ import annotations

import re

from data_builders.clips import Clip, Skipped
from data_builders.debs import Fetched, Package
from lalm.audio.io import probe_audio
from lalm.errors import AudioError

PACKAGES = (
    Package(
        "sonic-pi-samples",
        (".flac", "samples/README.md", "copyright"),
        {"3.2.2~repack-8": "25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d"},
    ),
)
LICENCE = "CC0-1.0"

LABELS: dict[str, str] = {
    # label: the names that carry it, as they stand in the package
    "kick drum": """
        bd_808 bd_ada bd_boom bd_fat bd_gas bd_haus bd_klub bd_mehackit bd_pure bd_sone bd_tek bd_zome
        bd_zum drum_bass_hard drum_bass_soft drum_heavy_kick elec_hollow_kick elec_soft_kick
    """,
    "snare drum": """
        sn_dolf sn_dub sn_generic sn_zome drum_snare_hard drum_snare_soft elec_snare elec_hi_snare
        elec_lo_snare elec_mid_snare elec_filt_snare
    """,
    "cymbal": """
        drum_cymbal_closed drum_cymbal_hard drum_cymbal_open drum_cymbal_pedal drum_cymbal_soft
        drum_splash_hard drum_splash_soft elec_cymbal
    """,
    "tom drum": """
        drum_tom_hi_hard drum_tom_hi_soft drum_tom_lo_hard drum_tom_lo_soft drum_tom_mid_hard
        drum_tom_mid_soft elec_fuzz_tom
    """,
    "tabla": """
        tabla_dhec tabla_ghe1 tabla_ghe2 tabla_ghe3 tabla_ghe4 tabla_ghe5 tabla_ghe6 tabla_ghe7 tabla_ghe8
        tabla_na tabla_na_o tabla_na_s tabla_re tabla_tas1 tabla_tas2 tabla_tas3 tabla_tun1 tabla_tun2
        tabla_tun3
    """,
    "drum loop": """
        loop_amen loop_amen_full loop_breakbeat loop_compus loop_industrial loop_mehackit1 loop_mehackit2
        loop_perc1 loop_perc2
    """,
    "synth bass": """
        bass_dnb_f bass_drop_c bass_hard_c bass_hit_c bass_thick_c bass_trance_c bass_voxy_c bass_voxy_hit_c
        bass_woodsy_c glitch_bass_g
    """,
    "electronic blip": "elec_beep elec_blip elec_blip2 elec_blup elec_ping elec_plip elec_pop elec_twip",
    "bell": "perc_bell perc_bell2 elec_bell elec_chime elec_triangle",
    "drone": "ambi_drone ambi_glass_hum ambi_haunted_hum ambi_soft_buzz loop_drone_g_97",
    "robot noise": """
        glitch_robot1 glitch_robot2 mehackit_robot1 mehackit_robot2 mehackit_robot3 mehackit_robot4
        mehackit_robot5 mehackit_robot6 mehackit_robot7
    """,
    "whoosh": "perc_swoosh perc_swash ambi_swoosh ambi_dark_woosh",
    "record scratch": "vinyl_backspin vinyl_rewind vinyl_scratch",
    "electric guitar": "guit_e_fifths guit_e_slide guit_em9 guit_harmonics",
    "finger snap": "perc_snap perc_snap2",
    "cowbell": "drum_cowbell",
    "drum roll": "drum_roll",
    "crow": "misc_crow",
    "burp": "misc_burp",
    "cash register": "perc_till",
    "door": "perc_door",
    "vinyl hiss": "vinyl_hiss",
    "3D printer": "loop_3d_printer",
}

_PART_OF = {"loop_amen_full": "loop_amen", "bass_voxy_hit_c": "bass_voxy_c"}


def read_clips(fetched: dict[str, Fetched], seed: int) -> tuple[list[Clip], list[Skipped]]:
    """Every sample whose name says what is heard."""
    package = fetched["sonic-pi-samples"]
    files = {
        member.rsplit("/", 1)[1].removesuffix(".flac"): member for member in package.members if member.endswith(".flac")
    }
    pages = _freesound_pages(package)
    clips, skipped = [], []
    for label, names in LABELS.items():
        for name in names.split():
            clip_id = f"sonic-pi-{name.replace('_', '-')}"
            if name not in files:
                skipped.append(Skipped(clip_id, "not in this version of the package"))
                continue
            path = package.folder / files[name]
            try:
                seconds = probe_audio(path).seconds
            except AudioError as error:
                skipped.append(Skipped(clip_id, str(error).removeprefix(f"{path}: ")))
                continue
            clips.append(
                Clip(
                    id=clip_id,
                    path=path,
                    seconds=seconds,
                    source=package.name,
                    licence=LICENCE,
                    group=f"sonic-pi-{_recording(name)}",
                    kind="sound",
                    label=label,
                    provenance={
                        "package": package.name,
                        "version": package.version,
                        "file": f"{name}.flac",
                        **({"freesound": pages[_plain(name)]} if _plain(name) in pages else {}),
                    },
                )
            )
    return clips, skipped


def _recording(name: str) -> str:
    """Two takes of one drum, or a part of a recording and the whole of it, stay together in a split."""
    return re.sub("_(hard|soft)$", "", _PART_OF.get(name, name))


def _freesound_pages(package: Fetched) -> dict[str, str]:
    readme = next((member for member in package.members if member.endswith("README.md")), None)
    if readme is None:
        return {}
    text = (package.folder / readme).read_text(encoding="utf-8", errors="replace")
    return {_plain(name): page for name, page in re.findall(r"`:(\w+)`\s*- (\S+)", text)}


def _plain(name: str) -> str:
    """The README writes `loop_3dprinter` and `perc_bell_2` where the files are `loop_3d_printer` and `perc_bell2`."""
    return name.replace("_", "")

"""The look of report.html: one style sheet, no script, no request; light or dark as the reader's system is."""

STYLE = """
:root { color-scheme: light dark;
  --paper:#f6f6f3; --card:#ffffff; --ink:#1c1d22; --soft:#686b76; --line:#e3e3de; --track:#ecece7;
  --model:#4b52d6; --good:#11845b; --good-bg:#dff3e9; --bad:#bf3b35; --bad-bg:#fbe4e1;
  --silent:#8a8d98; --swapped:#d08a00; --majority:#a3468f; --chance:#3f8fb8; --probe:#11845b; --heat:75,82,214; }
@media (prefers-color-scheme: dark) { :root {
  --paper:#131419; --card:#1c1e25; --ink:#eceef4; --soft:#9a9eac; --line:#2d303a; --track:#2a2d37;
  --model:#8b92ff; --good:#4ecb98; --good-bg:#15352a; --bad:#ff8f86; --bad-bg:#3d201f;
  --silent:#9ea2b0; --swapped:#f0b440; --majority:#df85cb; --chance:#6cbfe8; --probe:#4ecb98; --heat:139,146,255; } }
* { box-sizing:border-box }
body { margin:0; background:var(--paper); color:var(--ink);
  font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif }
main { max-width:1120px; margin:0 auto; padding:44px 28px 80px }
header p { margin:0; color:var(--soft) }
header p.about { max-width:72ch; margin-top:6px }
.eyebrow { font-size:12px; letter-spacing:.09em; text-transform:uppercase }
h1 { margin:2px 0 4px; font-size:36px; line-height:1.15; letter-spacing:-.02em; overflow-wrap:anywhere }
h2 { margin:48px 0 14px; font-size:20px; letter-spacing:-.01em }
h2 + p.note { margin:-8px 0 14px }
.note { color:var(--soft); font-size:13.5px; max-width:84ch }
.card { background:var(--card); border:1px solid var(--line); border-radius:14px; padding:20px 22px }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(190px,1fr)); gap:14px; margin-top:28px }
.tile b { display:block; font-size:30px; line-height:1.2; letter-spacing:-.02em; font-variant-numeric:tabular-nums }
.tile span { color:var(--soft); font-size:13px }
.scroll { overflow-x:auto; padding:6px 8px 10px }
table.tasks { width:100%; border-collapse:collapse; font-variant-numeric:tabular-nums }
.tasks th { color:var(--soft); font-weight:500; font-size:12.5px; text-align:right; padding:10px 8px;
  white-space:nowrap }
.tasks td { border-top:1px solid var(--line); padding:11px 8px; text-align:right; white-space:nowrap }
.tasks th:first-child,.tasks td:first-child,.tasks th.left { text-align:left }
.tasks td.name { font-weight:600 } .tasks td.name small { display:block; color:var(--soft); font-weight:400;
  white-space:normal; max-width:24ch; line-height:1.35 }
.tasks td.model { font-weight:700; font-size:16px; color:var(--model) }
.tasks td.wide { width:28%; min-width:160px }
.tasks .none { color:var(--soft) }
.track { position:relative; height:14px; border-radius:7px; background:var(--track) }
.track .fill { position:absolute; inset:0 auto 0 0; border-radius:7px; background:var(--model); opacity:.9 }
.track i { position:absolute; top:-4px; bottom:-4px; width:3px; margin-left:-1.5px; border-radius:2px;
  box-shadow:0 0 0 1.5px var(--card) }
.silent { background:var(--silent) } .swapped { background:var(--swapped) } .majority { background:var(--majority) }
.chance { background:var(--chance) } .probe { background:var(--probe) }
.legend { display:flex; flex-wrap:wrap; gap:6px 20px; padding:10px 10px 4px; color:var(--soft); font-size:13px }
.legend span { display:inline-flex; align-items:center; gap:7px }
.legend i { width:4px; height:14px; border-radius:2px }
.legend i.bar { width:20px; background:var(--model); border-radius:7px }
svg.curve { display:block; width:100%; height:auto }
svg .grid { stroke:var(--line) } svg .border { stroke:var(--soft); stroke-dasharray:3 4 }
svg text { font:12px system-ui,sans-serif } svg .tick { fill:var(--soft) } svg .stage { font-weight:600 }
svg polyline { fill:none; stroke-linejoin:round } svg .raw { stroke-width:1; opacity:.35 }
svg .mean { stroke-width:2.4 }
svg polyline.stage0 { stroke:var(--model) } svg polyline.stage1 { stroke:var(--swapped) }
svg polyline.stage2 { stroke:var(--good) } svg polyline.stage3 { stroke:var(--majority) }
svg polyline.stage4 { stroke:var(--chance) } svg text.stage4 { fill:var(--chance) }
svg text.stage0 { fill:var(--model) } svg text.stage1 { fill:var(--swapped) }
svg text.stage2 { fill:var(--good) } svg text.stage3 { fill:var(--majority) }
img.curve { width:100%; border-radius:8px }
.grids { display:flex; flex-wrap:wrap; align-items:flex-start; gap:16px }
.grids .card { max-width:100%; overflow-x:auto } .card h3 { margin:0 0 10px; font-size:15px }
table.confusion { border-collapse:separate; border-spacing:2px; font-size:12.5px; font-variant-numeric:tabular-nums }
.confusion th { font-weight:500; color:var(--soft); text-align:right; padding:2px 6px; white-space:nowrap;
  max-width:130px; overflow:hidden; text-overflow:ellipsis }
.confusion thead th { vertical-align:bottom; padding:0 0 4px }
.confusion thead th span { display:inline-block; writing-mode:vertical-rl; transform:rotate(180deg); max-height:84px;
  overflow:hidden; text-overflow:ellipsis; padding:2px 0 }
.confusion thead th { text-align:center }
.confusion td { width:30px; min-width:30px; height:28px; text-align:center; border-radius:5px; background:var(--track) }
.confusion td.zero { color:transparent } .confusion td.hit { font-weight:700 }
.examples { display:grid; grid-template-columns:repeat(auto-fill,minmax(318px,1fr)); gap:16px }
.example { padding:0; overflow:hidden; display:flex; flex-direction:column }
.example .picture { height:84px; background:#0d0c1d; display:flex }
.example .picture img { flex:1; min-width:0; width:100%; height:84px }
.example audio { width:100%; height:36px; display:block; margin:10px 0 2px }
.example .body { padding:4px 18px 18px; display:flex; flex-direction:column; gap:8px; flex:1 }
.example .top { display:flex; justify-content:space-between; align-items:center; gap:10px }
.example .task { color:var(--soft); font-size:12.5px }
.mark { font-size:12px; font-weight:600; border-radius:99px; padding:2px 10px; white-space:nowrap }
.mark.right { color:var(--good); background:var(--good-bg) } .mark.wrong { color:var(--bad); background:var(--bad-bg) }
.example .question { font-weight:600; overflow-wrap:anywhere }
dl { margin:0; display:grid; grid-template-columns:max-content 1fr; gap:3px 14px } dt { color:var(--soft) }
dd { margin:0; overflow-wrap:anywhere } .example dl { font-size:14px } .example dd.reply { font-weight:600 }
dd.faint { color:var(--soft) }
details { margin-top:16px } summary { cursor:pointer; color:var(--model) }
pre { overflow-x:auto; background:var(--track); border-radius:10px; padding:16px; font-size:12.5px; line-height:1.5 }
footer { margin-top:56px; color:var(--soft); font-size:13px }
@media (max-width:640px) { main { padding:28px 14px 60px } h1 { font-size:28px } }
@media print { body { background:#fff } .example audio { display:none } .card { break-inside:avoid } }
"""

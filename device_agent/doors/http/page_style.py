"""How the door's page looks: colours and type of the operators' page, as one text, because the page may load nothing."""

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark;
  --bg: #FAFAFB; --surface: #FFF; --sunken: #F1F2F4; --line: #E2E4E8; --text: #15181C; --text-2: #474E59; --text-3: #626974;
  --accent: #3D4FD1; --ok: #0A7357; --ok-fill: #3AA583; --ok-bg: #E3F5EE; --failed: #B23A0A; --failed-bg: #FDECE3;
  --silent: #7F5300; --silent-bg: #FBF1D9; --none: #626974; --none-bg: #F1F2F4 }
@media (prefers-color-scheme: dark) { :root {
  --bg: #0E1013; --surface: #15181C; --sunken: #0A0B0D; --line: #282D34; --text: #E9EBEE; --text-2: #B5BCC6; --text-3: #949CA8;
  --accent: #97A4FF; --ok: #4FD3AA; --ok-fill: #3FBF97; --ok-bg: #0F2C24; --failed: #FF9466; --failed-bg: #3A1A0C;
  --silent: #F3BE55; --silent-bg: #33260A; --none: #949CA8; --none-bg: #1C2026 } }
* { box-sizing: border-box; margin: 0; padding: 0 }
body { font: 400 14px/20px system-ui, sans-serif; color: var(--text); background: var(--bg); min-height: 100vh }
header { display: flex; align-items: center; gap: 16px; min-height: 48px; padding: 6px 24px; border-bottom: 1px solid var(--line);
  font-size: 13px; color: var(--text-2) }
header .brand { display: flex; gap: 10px; align-items: center; font-weight: 640; color: var(--text) }
header .crumb { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
header time { white-space: nowrap; font-variant-numeric: tabular-nums }
main { padding: 20px 24px 40px; max-width: 1168px; margin: 0 auto; overflow-wrap: anywhere }
h1 { font-size: 20px; line-height: 28px; font-weight: 640 }
h2 { font-size: 14px; line-height: 20px; font-weight: 640; margin-bottom: 8px }
a { color: var(--accent); text-underline-offset: 2px }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 4px }
code, pre { font: 12px/18px ui-monospace, monospace }
pre { background: var(--sunken); border-radius: 6px; padding: 10px 12px; overflow-x: auto; white-space: pre-wrap; margin-top: 4px }
.sub { font-size: 13px; line-height: 18px; margin-top: 2px; color: var(--text-3) }
.note { font-size: 12px; line-height: 16px; color: var(--text-3); margin-top: 8px }
.card { background: var(--surface); border: 1px solid var(--line); border-radius: 10px; padding: 12px 16px; margin-top: 16px; min-width: 0 }
.verdict { display: flex; gap: 16px; align-items: center; padding: 16px }
.sentence { font-size: 15px; line-height: 22px }
.chip { font-size: 12px; line-height: 16px; font-weight: 600; padding: 4px 8px; border-radius: 4px; white-space: nowrap; flex: none }
.t-ok { color: var(--ok); background: var(--ok-bg) }
.t-silent { color: var(--silent); background: var(--silent-bg) }
.figures { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); padding: 0 }
.figures > div { display: flex; flex-direction: column; padding: 12px 16px; border-left: 1px solid var(--line);
  font-size: 13px; line-height: 18px }
.figures > div:first-child { border-left: 0 }
.figures dd:first-of-type { order: -1; font: 640 22px/28px system-ui, sans-serif; font-variant-numeric: tabular-nums }
.figures dd + dd { font-size: 12px; line-height: 16px; color: var(--text-3) }
.two { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 0 20px; align-items: start }
dl.facts { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 6px 16px; font-size: 13px; line-height: 18px }
dl.facts dt { color: var(--text-3) }
table { border-collapse: collapse; width: 100%; font-size: 13px; line-height: 18px }
th { font-size: 12px; font-weight: 500; color: var(--text-3); text-align: left }
th, td { padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line); vertical-align: top }
tr:last-child > td { border-bottom: 0 }
th:last-child, td:last-child { padding-right: 0 }
.num { text-align: right; font-variant-numeric: tabular-nums }
@media (max-width: 760px) {
  header { padding: 6px 16px; gap: 12px }
  main { padding: 16px 16px 32px }
  .two { grid-template-columns: minmax(0, 1fr) }
  .figures { grid-template-columns: repeat(2, minmax(0, 1fr)) }
  .figures > div { border-left: 0; border-top: 1px solid var(--line) }
  .figures > div:nth-child(-n+2) { border-top: 0 }
  .figures > div:last-child { grid-column: 1 / 3 }
  .figures > div:nth-child(even) { border-left: 1px solid var(--line) }
  .verdict { flex-direction: column; align-items: flex-start; gap: 8px }
}
"""

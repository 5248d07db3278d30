"""The style sheet of the report's page: wide and narrow screens, light and dark, and print."""

CSS = """
:root{color-scheme:light dark;--page:#fff;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--card:#f6f8fa;--link:#0550ae;
--warn:#fff4ce;--warn-ink:#5c3c00;--warn-line:#d4a72c}
@media (prefers-color-scheme:dark){:root{--page:#0d1117;--ink:#e6edf3;--soft:#9da7b3;--line:#30363d;--card:#161b22;
--link:#79b8ff;--warn:#3a2d00;--warn-ink:#ffdf8a;--warn-line:#9e7700}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);
font:16px/1.55 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
overflow-wrap:break-word}
a{color:var(--link)}
:focus-visible{outline:2px solid var(--link);outline-offset:2px}
.frame{max-width:80rem;margin:0 auto;padding:1rem 1.25rem 4rem;display:grid;gap:0 2.5rem;
grid-template-columns:15rem minmax(0,1fr)}
header{grid-column:1/-1}
h1{font-size:1.7rem;line-height:1.25;margin:.5rem 0 1rem}
h2{font-size:1.3rem;line-height:1.3;margin:2.5rem 0 .75rem;padding-top:.75rem;border-top:1px solid var(--line);
scroll-margin-top:.5rem}
h3{font-size:1.05rem;margin:1.5rem 0 .5rem}
main{min-width:0}
main>section:first-child h2{margin-top:0;border-top:0;padding-top:0}
p,li{max-width:46rem;margin:.6rem 0}
.banner{border:1px solid var(--warn-line);border-left-width:.5rem;border-radius:.4rem;background:var(--warn);
color:var(--warn-ink);padding:.7rem 1rem;margin:0 0 1rem;max-width:none}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(9rem,45%),1fr));gap:.5rem 1.5rem;margin:0 0 1.5rem;
padding:1rem;background:var(--card);border:1px solid var(--line);border-radius:.4rem}
dl>div{min-width:0}dt{color:var(--soft);font-size:.82rem}dd{margin:0}
nav{position:sticky;top:1rem;align-self:start;max-height:calc(100vh - 2rem);overflow:auto;font-size:.92rem}
nav h2{font-size:.82rem;color:var(--soft);margin:0 0 .3rem;padding:0;border:0}
nav ul{list-style:none;margin:0;padding:0}nav li{margin:0}
nav a{display:block;padding:.28rem .5rem;border-left:2px solid var(--line);text-decoration:none}
nav a:hover{border-color:var(--link);background:var(--card)}
figure{margin:1.25rem 0}
figure img{display:block;max-width:100%;height:auto;background:#fff;border:1px solid var(--line);border-radius:.4rem;
padding:.5rem}
figcaption,caption{color:var(--soft);font-size:.9rem;text-align:left;max-width:46rem;margin-top:.4rem}
.table{margin:1.25rem 0}
.table>p{margin:.3rem 0;font-size:.9rem;color:var(--soft)}
.scroll{overflow:auto;max-height:32rem;border:1px solid var(--line);border-radius:.4rem;position:relative}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;min-width:100%}
th,td{padding:.35rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td{white-space:nowrap}
td.long{white-space:normal;min-width:16rem;max-width:26rem}
tbody tr:last-child>*{border-bottom:0}
tbody tr:hover{background:var(--card)}
thead th{position:sticky;top:0;z-index:1;background:var(--card);padding:0;vertical-align:bottom}
th button{all:unset;box-sizing:border-box;width:100%;padding:.4rem .7rem;cursor:pointer;font-weight:600;
white-space:nowrap}
th button:focus-visible{outline:2px solid var(--link);outline-offset:-2px}
th button::after{content:"\\2195";opacity:.35;padding-left:.35rem}
th[aria-sort=ascending] button::after{content:"\\2191";opacity:1}
th[aria-sort=descending] button::after{content:"\\2193";opacity:1}
.num{text-align:right}
.viewer{margin:1.25rem 0;border:1px solid var(--line);border-radius:.4rem;background:var(--card);padding:1rem}
.viewer h3{margin:0 0 .25rem}
.viewer>p{margin:.25rem 0 .75rem;font-size:.92rem}
.views{background:#000;padding:.5rem;border-radius:.3rem;position:relative}
.views:not([data-live]) canvas{position:absolute;inset:0;opacity:0;pointer-events:none}
.views img{display:block;max-width:100%;height:auto;margin:0 auto}
.views[data-live]{height:22rem;padding:0}
.views[data-live] img,.views canvas[hidden]{display:none}
.views canvas{display:block;width:100%;height:100%}
.structures{display:flex;flex-wrap:wrap;gap:.35rem;margin:.5rem 0}
.structures button{font:inherit;font-size:.92rem;padding:.25rem .75rem;border:1px solid var(--line);
border-radius:1rem;background:var(--page);color:var(--link);cursor:pointer}
.structures button[aria-pressed=true]{border-color:var(--link);background:var(--link);color:var(--page);
font-weight:600}
.controls{display:grid;grid-template-columns:auto minmax(0,1fr) 11rem;gap:.4rem .8rem;align-items:center;
margin-top:.75rem;font-size:.92rem}
.controls>input{width:100%;min-height:1.75rem;margin:0;accent-color:var(--link)}
.controls output{font-variant-numeric:tabular-nums}
.switches{grid-column:2/-1;display:flex;flex-wrap:wrap;gap:.2rem 1rem}
.switches input{margin:0 .35rem 0 0;min-height:1.25rem;min-width:1.25rem;vertical-align:-.3rem;
accent-color:var(--link)}
.key{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;padding:0;margin:.6rem 0 0;font-size:.9rem}
.key li{margin:0}.key i{display:inline-block;width:.85rem;height:.85rem;border-radius:.15rem;margin-right:.4rem;
vertical-align:-.08rem;border:1px solid #0006}
footer{grid-column:1/-1;color:var(--soft);font-size:.88rem;margin-top:3rem;border-top:1px solid var(--line)}
@media (max-width:60rem){
.frame{display:block;padding:.75rem .9rem 3rem}
h1{font-size:1.4rem}
nav{position:static;max-height:none;margin:0 0 1rem}
nav ul{display:flex;gap:.35rem;overflow-x:auto;padding-bottom:.3rem}
nav li{flex:none}
nav a{border:1px solid var(--line);border-radius:1rem;padding:.3rem .75rem}
.views[data-live]{height:auto;aspect-ratio:1;max-height:75vh}
.controls{grid-template-columns:auto minmax(0,1fr)}
.controls output{grid-column:2}
}
@media (max-width:40rem){
.structures{flex-wrap:nowrap;overflow-x:auto;padding:3px}
.structures button{flex:none}
.pan{overflow-x:auto}
.pan img{width:min(var(--own),40rem);max-width:none}
}
@media print{
:root{--page:#fff;--ink:#000;--soft:#333;--line:#999;--card:#fff;--link:#000;--warn:#fff;--warn-ink:#000}
nav,.controls,.structures,.fault,.table>p a{display:none}
.views canvas{display:none!important}
.views{height:auto!important;max-height:none!important;aspect-ratio:auto!important}.views[data-live] img{display:block}
.frame{display:block;max-width:none;padding:0}
.scroll{overflow:visible;max-height:none;border:0}
thead th{position:static}
th button::after{content:none}
table{font-size:.65rem}
th,td,th button{white-space:normal;padding:.15rem .3rem}
td.long{min-width:0}
figure,.viewer,tr,dl{break-inside:avoid}
h2,h3{break-after:avoid}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
}
"""

TABS_CSS = """
.chooser{position:sticky;top:0;z-index:2;display:flex;gap:.3rem 1rem;align-items:baseline;padding:.6rem 0;
background:var(--page);border-bottom:1px solid var(--line)}
.chooser .label{margin:0;color:var(--soft);font-size:.9rem}
.chooser ul{list-style:none;display:flex;flex-wrap:wrap;gap:.35rem;margin:0;padding:2px;min-width:0;max-height:9rem;
overflow:auto}
.chooser li{margin:0}
.chooser a{display:block;padding:.2rem .65rem;border:1px solid var(--line);border-radius:1rem;text-decoration:none;
font-size:.88rem}
.chooser a:hover{border-color:var(--link);background:var(--card)}
.chooser a[aria-selected=true]{border-color:var(--link);background:var(--link);color:var(--page);font-weight:600}
.panel>h2{margin-top:1.25rem;border-top:0;padding-top:0}
.panel,.panel section{scroll-margin-top:var(--chooser,3rem)}
.panel h3{font-size:1.15rem;margin:2rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}
.panel>h2+section h3{margin-top:.5rem;border-top:0;padding-top:0}
nav ul ul a{padding-left:1.3rem;font-size:.95em}
@media (max-width:60rem){nav ul ul{display:none}.chooser ul{flex-wrap:nowrap}.chooser li{flex:none}}
@media print{.chooser{display:none}.panel[hidden]{display:block}.panel{break-before:page}}
"""

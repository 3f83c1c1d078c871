"""Whether a view fits a phone's screen: nothing reaches out of it, no text is cut, and what is touched can be hit."""

from __future__ import annotations

PROBLEMS = """() => {
  const width = document.documentElement.clientWidth, found = [];
  const note = (what, one) => found.push(`${what}: ${one.outerHTML.replace(/\\s+/g, ' ').slice(0, 160)}`);
  const scrolls = (one) => one.closest('pre, .table, .tex, .offscreen, .experts, .grid, canvas');
  const modal = [...document.querySelectorAll('dialog[open]')].at(-1);
  const isSeen = (one) => one.checkVisibility({visibilityProperty: true}) && !one.closest('.offscreen')
    && (!modal || modal.contains(one) || one.closest('.toast'));
  if (document.scrollingElement.scrollWidth > width) found.push('the page can be moved sideways');
  for (const one of document.querySelectorAll('body *')) {
    if (!isSeen(one) || one.closest('svg, canvas') || scrolls(one)) continue;
    const box = one.getBoundingClientRect(), style = getComputedStyle(one);
    if (!box.width || !box.height || style.position === 'fixed' && one.matches('.skip, .veil')) continue;
    if (box.left < -1 || box.right > width + 1) note('outside', one);
    const ownsText = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const isSideways = ['auto', 'scroll'].includes(style.overflowX);
    if (!isSideways && one.scrollWidth > one.clientWidth + 1 && one.clientWidth && style.display !== 'inline'
        && (ownsText || one.matches('button, a, label, summary, select'))
        && !(style.textOverflow === 'ellipsis' && one.dir === 'auto')  // names that people gave may be shortened
        && !one.querySelector('[dir=auto]')) note('cut', one);
    if (one.matches('button, a, input, select, textarea, summary, [role=option]') && !one.disabled) {
      const isInText = style.display === 'inline' && one.matches(':is(p, li, td, .prose *) > a');
      const label = one.closest('label')?.getBoundingClientRect() ?? box;
      const [w, h] = [Math.max(box.width, label.width), Math.max(box.height, label.height)];
      if (!isInText && !one.matches('.tokens button') && Math.min(w, h) < 23.5) note(`${w}x${h} to touch`, one);
    }
  }
  return found;
}"""


SPOKEN = """(code) => new Promise((done) => {
  const wait = () => {
    if (document.documentElement.lang !== code) return requestAnimationFrame(wait);
    dispatchEvent(new Event('resize'));  // what is placed by hand is placed again
    requestAnimationFrame(() => requestAnimationFrame(done));
  };
  wait();
})"""
FROM_LEFT = ("de", "en", "fr", "es", "zh", "hi", "sw")  # the first is what pages begin in
FROM_RIGHT = ("ar",)


class InLanguages:
    """What a person sees, in each of these languages: another tab changes the language, as one may.

    One page for all of them costs a tenth of one for each.
    """

    def __init__(self, person, codes):
        self.person, self.codes, self.tab = person, codes, None

    def check(self, name):
        """Nothing of what is shown is cut, out of the screen, or too small for a finger."""
        self.person.settle()
        self.person.picture(f"fit-{self.codes[0]}-{name.replace(' ', '-').replace('/', 'slash')}")
        found = {code: problems for code in self.codes if (problems := self._problems_in(code))}
        assert found == {}, f"{name} does not fit: {found}"
        self._speak(self.codes[0])

    def _problems_in(self, code):
        self._speak(code)
        return self.person.page.evaluate(PROBLEMS)

    def _speak(self, code):
        if len(self.codes) == 1:
            return
        if self.tab is None:
            self.tab = self.person.new_page()
            self.tab.goto(f"{self.person.base}/manifest.webmanifest")
            self.person.page.bring_to_front()
        self.tab.evaluate("""(code) => localStorage.setItem('tenth.preferences', JSON.stringify(
          {...JSON.parse(localStorage.getItem('tenth.preferences')), language: code}))""", code)
        self.person.page.evaluate(SPOKEN, code)


def check_it_fits(person, name):
    """Nothing of what is shown is cut, out of the screen, or too small for a finger."""
    person.settle()
    found = person.page.evaluate(PROBLEMS)
    assert found == [], f"{name} does not fit: {found}"

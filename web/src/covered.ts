// How much of the page a keyboard on the screen lies over, as --covered: Safari does not make the page smaller for it.

function measure(view: VisualViewport): void {
  const covered = view.scale > 1.01 ? 0 : Math.max(0, Math.round(innerHeight - view.height)); // not where one zooms in
  document.documentElement.style.setProperty('--covered', `${covered}px`);
  if (covered) scrollTo(0, 0); // Safari pushed the page up to show what is written into
}

export function watchKeyboard(): void {
  const view = window.visualViewport;
  view?.addEventListener('resize', () => measure(view));
}

"""Draws the page's icons (PNG) from web/public/icons/icon.svg with Debian's chromium: run after changing it."""

from pathlib import Path

from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parents[1] / "web" / "public" / "icons"
SIZES = {"icon-180.png": (180, 0.0), "icon-192.png": (192, 1.0), "icon-512.png": (512, 1.0), "icon-mask-512.png": (512, 0.0)}


def main() -> None:
    source = (FOLDER / "icon.svg").read_text()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        for name, (size, rounding) in SIZES.items():
            drawing = source.replace('rx="11"', f'rx="{11 * rounding:g}"')  # systems cut masks and touch icons themselves
            page = browser.new_page(viewport={"width": size, "height": size})
            page.set_content(f'<style>body{{margin:0;background:none}}svg{{display:block;width:{size}px}}</style>{drawing}')
            page.screenshot(path=FOLDER / name, omit_background=True)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()

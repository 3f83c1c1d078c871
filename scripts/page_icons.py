"""Draws the page's icons (PNG) from web/public/icons/icon.svg with Debian's chromium: run after changing it."""

from pathlib import Path

from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parents[1] / "web" / "public" / "icons"
SIZES = {  # name -> pixels, and whether corners are round: systems cut masks and touch icons themselves
    "icon-180.png": (180, False), "icon-192.png": (192, True), "icon-512.png": (512, True),
    "icon-mask-512.png": (512, False),
}


def main() -> None:
    source = (FOLDER / "icon.svg").read_text()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium",
                                             args=["--no-sandbox", "--disable-gpu"])
        for name, (size, is_round) in SIZES.items():
            drawing = source if is_round else source.replace('rx="11"', "")
            page = browser.new_page(viewport={"width": size, "height": size})
            page.set_content(f'<style>body{{margin:0;background:none}}svg{{display:block;width:{size}px}}</style>{drawing}')
            page.screenshot(path=FOLDER / name, omit_background=True)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()

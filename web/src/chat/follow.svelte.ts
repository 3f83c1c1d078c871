// Keeps the end of an answer in view while it grows, until somebody scrolls up.

const NEAR_PX = 60;

export class Follow {
  isAtEnd = $state(true);
  private isFollowing = true;
  private scroller: HTMLElement | null = null;
  private lastTop = 0;

  watch(scroller: HTMLElement, content: HTMLElement): () => void {
    this.scroller = scroller;
    const sizes = new ResizeObserver(() => {
      if (this.isFollowing) scroller.scrollTop = scroller.scrollHeight;
      else this.look();
    });
    sizes.observe(content);
    sizes.observe(scroller); // a keyboard on the screen makes it smaller
    const onScroll = () => {
      const { scrollTop } = scroller;
      if (scrollTop < this.lastTop - 2 && this.distance() > NEAR_PX) this.isFollowing = false;
      else if (this.distance() <= NEAR_PX) this.isFollowing = true;
      this.lastTop = scrollTop;
      this.look();
    };
    scroller.addEventListener('scroll', onScroll, { passive: true });
    return () => {
      sizes.disconnect();
      scroller.removeEventListener('scroll', onScroll);
    };
  }

  private distance(): number {
    const { scrollHeight = 0, scrollTop = 0, clientHeight = 0 } = this.scroller ?? {};
    return scrollHeight - scrollTop - clientHeight;
  }

  private look(): void {
    this.isAtEnd = this.distance() <= NEAR_PX;
  }

  release(): void {
    this.isFollowing = false;
  }

  toEnd(isSmooth = false): void {
    this.isFollowing = true;
    this.scroller?.scrollTo({ top: this.scroller.scrollHeight, behavior: isSmooth ? 'smooth' : 'instant' });
  }
}

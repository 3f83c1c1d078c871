// Objects with derived values that outlive the component that asked for them first.

export function lasting<T>(make: () => T): T {
  let made!: T;
  $effect.root(() => {
    made = make();
  });
  return made;
}

// jax-js maps and filters iterators, which Node has from version 22.
const iterators = Object.getPrototypeOf(Object.getPrototypeOf([].values()));
iterators.map ??= function* (f) {
  for (const value of this) yield f(value);
};
iterators.filter ??= function* (f) {
  for (const value of this) if (f(value)) yield value;
};
iterators.toArray ??= function () {
  return [...this];
};

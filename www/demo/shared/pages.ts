/** The pages of the site, in the order of the navigation; addresses as from the first page. */
export const pages = [
  { href: "./", title: "Feature maps" },
  { href: "./training/", title: "Train" },
  { href: "./video/", title: "Video" },
  { href: "./plan/", title: "Plan" },
  { href: "./surprise/", title: "Surprise" },
] as const;

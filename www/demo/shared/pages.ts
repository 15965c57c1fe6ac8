/** The pages of the site, in the order of the navigation. */
export const pages = [{ href: "./", title: "Feature maps" }] as const;

const KEY = "webjepa-theme";
const THEMES = ["system", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];

/** Storage can be forbidden (private windows, embedded pages); the choice then lasts for this visit only. */
function storage(): Storage | undefined {
  try {
    return window.localStorage;
  } catch {
    return undefined;
  }
}

function stored(): Theme {
  const value = storage()?.getItem(KEY);
  return THEMES.find((theme) => theme === value) ?? "system";
}

function apply(theme: Theme): void {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

/** A button that steps through system, light and dark, and remembers the choice. */
export function themeToggle(): HTMLButtonElement {
  let theme = stored();
  const button = document.createElement("button");
  button.type = "button";
  button.className = "theme-toggle";
  const show = () => {
    apply(theme);
    button.textContent = `Theme: ${theme}`;
  };
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]!;
    storage()?.setItem(KEY, theme);
    show();
  });
  show();
  return button;
}

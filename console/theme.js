// Before anything is drawn: the theme chosen last, or that of the system. A script of its own, since modules come later.
{
  const KEY = 'roost-theme';
  const system = matchMedia('(prefers-color-scheme: dark)');
  const isDark = () => (localStorage.getItem(KEY) ?? (system.matches ? 'dark' : 'light')) === 'dark';
  const show = () => {
    document.documentElement.dataset.theme = isDark() ? 'dark' : 'light';
    document.querySelector('[data-testid="theme-toggle"]')?.setAttribute('aria-pressed', String(isDark()));
    dispatchEvent(new Event('theme'));
  };
  show();
  system.addEventListener('change', show);
  addEventListener('DOMContentLoaded', () => {
    show();
    document.querySelector('[data-testid="theme-toggle"]').onclick = () => {
      localStorage.setItem(KEY, isDark() ? 'light' : 'dark');
      show();
    };
  });
}

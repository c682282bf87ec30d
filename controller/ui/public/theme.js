// Runs before the first paint, so that a chosen theme never flashes. A file of its own: nothing is inline.
(function () {
  try {
    var theme = localStorage.getItem('backstay.theme');
    if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  } catch (_) {
    // Storage is refused: the system's theme is used.
  }
})();

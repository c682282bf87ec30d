//! The promises of the product, tested on the installed packages.

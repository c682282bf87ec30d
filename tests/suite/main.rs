//! The promises of the product, one file for each. What needs the lab is in a module whose name begins with `lab_`.

mod lab_self;

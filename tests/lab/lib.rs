//! The lab: real systemd hosts in containers, with a network of their own.

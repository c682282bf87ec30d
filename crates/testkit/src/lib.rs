//! Doubles and conformance suites for tests.

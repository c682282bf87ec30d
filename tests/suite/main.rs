//! One test binary; one promise per file.
#![expect(missing_docs, reason = "a test's name is its documentation")]

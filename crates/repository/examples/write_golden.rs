//! Writes a golden repository: `cargo run -p repository --example write_golden -- DIRECTORY`.
//!
//! Golden repositories are made once for each released form of the format and never changed.
//! `tests/golden.rs` opens every one of them. The schedule key is that of the test there.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a tool for developers that writes files"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::sync::Arc;

use common::{World, manifest, noise, one_of_everything, path};
use edge::{EntryKind, Extent};
use testkit::{FileSpec, MemoryStore, TreeSource};

fn main() {
    let Some(directory) = std::env::args().nth(1) else {
        eprintln!("usage: write_golden DIRECTORY");
        return;
    };
    let world = World::new();
    let store = Arc::new(MemoryStore::default());
    let mut source = small();
    let first = world.run_well(&store, &source);
    source.add_file("server/added", "added later");
    source.remove(&path("server/empty"));
    let second = world.run_well(&store, &source);
    for (name, bytes) in store.objects() {
        let file = Path::new(&directory).join("objects").join(name.as_str());
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    for id in [first, second] {
        let (collected, report) = world.restore(&store, id);
        assert_eq!(report.failed, 0);
        let file = Path::new(&directory).join(format!("{id}.txt"));
        std::fs::write(file, manifest(&collected)).unwrap();
    }
}

/// One of everything again, but small once it is compressed.
fn small() -> TreeSource {
    let mut source = TreeSource::default();
    for spec in one_of_everything().specs().values() {
        if spec.data.len() < 10_000 {
            source.add(spec.clone());
        }
    }
    source.add_file("server/empty", "");
    source.add_file("server/whole", noise(1, 3000).repeat(10));
    source.add_file("server/general", noise(2, 3000).repeat(150));
    source.add_file("server/media.zip", noise(3, 3000).repeat(300));
    let mut dump = vec![0; 20_000_000];
    for (number, row) in dump.chunks_mut(100_000).enumerate() {
        row.iter_mut()
            .zip(number.to_le_bytes())
            .for_each(|(to, from)| *to = from);
    }
    source.add(FileSpec::stream(path("server/listed.sql"), dump));
    let mut sparse = FileSpec::plain(path("server/sparse"), EntryKind::File);
    sparse.data = Arc::new(noise(4, 3000));
    let extent = |offset, length| Extent { offset, length };
    sparse.extents = Some(vec![extent(4096, 1000), extent(65_536, 2000)]);
    sparse.entry.size_bytes = 100_000;
    source.add(sparse);
    source
}

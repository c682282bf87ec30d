//! Files and archives on standard output.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Alone;

/// Runs a program on bytes and gives what it says.
fn piped(program: &mut Command, input: &[u8]) -> String {
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_file_is_written_to_standard_output() {
    let alone = Alone::new();
    alone.back_up();
    let large = alone.host.path("tree/below/large.bin");
    let dump = |path: &str| {
        let words = alone.words(&["dump", "latest", path]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        alone.host.command(&words).output().unwrap()
    };
    let whole = dump(&large);
    assert!(whole.status.success() && whole.stderr.is_empty());
    assert_eq!(whole.stdout, fs::read(&large).unwrap());
    assert_eq!(
        dump(&alone.host.path("tree/index.php")).stdout,
        b"<?php // first"
    );
    let directory = dump(&alone.host.path("tree"));
    let error = String::from_utf8(directory.stderr).unwrap();
    assert!(error.contains("--archive tar"), "{error}");
    assert_eq!(directory.status.code(), Some(2));
    assert_eq!(dump("/nowhere").status.code(), Some(1));
    for pack in alone.packs() {
        fs::remove_file(pack).unwrap();
    }
    let lost = dump(&large);
    assert!(lost.stdout.is_empty());
    assert_eq!(lost.status.code(), Some(14));
}

#[test]
fn a_tar_stream_holds_the_subtree_as_tar_unpacks_it() {
    let alone = Alone::new();
    let tree = PathBuf::from(alone.host.path("tree"));
    fs::set_permissions(tree.join("index.php"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(tree.join("index.php"), tree.join("second name")).unwrap();
    symlink("below/large.bin", tree.join("link")).unwrap();
    let long = format!("below/{}", "long name ".repeat(20));
    fs::write(tree.join(&long), "long").unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 5_000_000).unwrap();
    alone.back_up();
    let words = alone.words(&["dump", "latest", tree.to_str().unwrap(), "--archive", "tar"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = alone.host.command(&words).output().unwrap();
    assert!(output.status.success(), "{}", alone.host.shown(&output));
    let out = PathBuf::from(alone.host.path("out"));
    fs::create_dir(&out).unwrap();
    let said = piped(
        Command::new("tar").args(["-xvf", "-", "-C"]).arg(&out),
        &output.stdout,
    );
    assert!(
        said.starts_with("tree\n") || said.starts_with("tree/\n"),
        "{said}"
    );
    let back = out.join("tree");
    for name in [
        "index.php",
        "second name",
        "below/large.bin",
        "sparse",
        &long,
    ] {
        assert!(
            fs::read(tree.join(name)).unwrap() == fs::read(back.join(name)).unwrap(),
            "{name}"
        );
        let (was, is) = (
            tree.join(name).metadata().unwrap(),
            back.join(name).metadata().unwrap(),
        );
        assert_eq!(
            (was.mode(), was.mtime(), was.mtime_nsec()),
            (is.mode(), is.mtime(), is.mtime_nsec()),
            "{name}"
        );
    }
    let inode = |name: &str| back.join(name).metadata().unwrap().ino();
    assert_eq!(inode("index.php"), inode("second name"));
    assert_eq!(
        fs::read_link(back.join("link")).unwrap(),
        PathBuf::from("below/large.bin")
    );
    assert!(!back.join("below/cache.tmp").exists());
}

#[test]
fn a_zip_stream_holds_the_subtree_and_says_what_it_leaves_out() {
    let alone = Alone::new();
    let tree = alone.host.path("tree");
    symlink("below/large.bin", format!("{tree}/link")).unwrap();
    alone.back_up();
    let dump = || {
        let words = alone.words(&["dump", "latest", &tree, "--archive", "zip"]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        alone.host.command(&words).output().unwrap()
    };
    let output = dump();
    assert!(output.status.success(), "{}", alone.host.shown(&output));
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(&output.stdout)).unwrap();
    let names: Vec<String> = archive.file_names().map(str::to_owned).collect();
    assert_eq!(
        names,
        [
            "tree/",
            "tree/below/",
            "tree/index.php",
            "tree/link",
            "tree/below/large.bin"
        ]
    );
    let mut bytes = Vec::new();
    let mut large = archive.by_name("tree/below/large.bin").unwrap();
    assert!(large.compressed_size() < large.size() / 10);
    large.read_to_end(&mut bytes).unwrap();
    drop(large);
    assert_eq!(bytes, fs::read(format!("{tree}/below/large.bin")).unwrap());
    assert!(archive.by_name("tree/link").unwrap().is_symlink());
    let status = Command::new("mkfifo").arg(format!("{tree}/pipe")).status();
    assert!(status.unwrap().success());
    alone.back_up();
    let partial = dump();
    let error = String::from_utf8(partial.stderr).unwrap();
    assert_eq!(partial.status.code(), Some(3), "{error}");
    assert!(
        error.contains("/tree/pipe: zip has no devices and no pipes"),
        "{error}"
    );
    assert!(zip::ZipArchive::new(std::io::Cursor::new(&partial.stdout)).is_ok());
}

//! House rules that no lint knows, on every file of the tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use model::Exit;

/// The most lines that a Rust file may have.
const LINES_MAX: usize = 600;

#[test]
fn rust_files_say_what_they_are_for() {
    let silent = rust_files()
        .into_iter()
        .filter(|path| !read(path).starts_with("//! "));
    assert_eq!(
        shown(silent),
        Vec::<String>::new(),
        "a file begins with a //! header"
    );
}

#[test]
fn rust_files_stay_short() {
    let long = rust_files()
        .into_iter()
        .filter(|path| read(path).lines().count() > LINES_MAX);
    assert_eq!(
        shown(long),
        Vec::<String>::new(),
        "a file has at most {LINES_MAX} lines"
    );
}

#[test]
fn nothing_is_left_for_later() {
    // Spelled apart, so that this file does not find itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("to", "do!("),
        concat!("#[ig", "nore"),
    ];
    let left = rust_files().into_iter().filter(|path| {
        let text = read(path);
        words.iter().any(|word| text.contains(word))
    });
    assert_eq!(
        shown(left),
        Vec::<String>::new(),
        "what is not done is not in the tree"
    );
}

#[test]
fn every_file_of_the_suite_is_run() {
    let main = read(&root().join("tests/suite/main.rs"));
    let forgotten = tracked("tests/suite").into_iter().filter(|path| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_top = path
            .parent()
            .is_some_and(|parent| parent.ends_with("tests/suite"));
        is_top && is_rust(path) && name != "main" && !main.contains(&format!("mod {name};"))
    });
    assert_eq!(
        shown(forgotten),
        Vec::<String>::new(),
        "tests/suite/main.rs names every file"
    );
}

#[test]
fn exit_codes_are_documented() {
    let document = read(&root().join("docs/exit-codes.md"));
    for exit in Exit::ALL {
        let code = exit.code();
        let row = document
            .lines()
            .filter(|line| line.starts_with('|'))
            .any(|line| {
                line.split('|')
                    .nth(1)
                    .is_some_and(|cell| cell.trim().trim_matches('`') == code.to_string())
            });
        assert!(row, "docs/exit-codes.md has no row for {code} ({exit:?})");
    }
}

#[test]
fn versions_of_dependencies_live_in_the_root_manifest() {
    // The fuzz targets are a workspace of their own.
    let own = [root(), root().join("fuzz")];
    let manifests = tracked(".").into_iter().filter(|path| {
        let is_root = path
            .parent()
            .is_some_and(|at| own.iter().any(|own| at == own));
        path.file_name().is_some_and(|name| name == "Cargo.toml") && !is_root
    });
    for path in manifests {
        let text = read(&path);
        let sections = text.split("\n[").filter(|section| {
            section
                .lines()
                .next()
                .is_some_and(|line| line.contains("dependencies"))
        });
        for line in sections.flat_map(|section| section.lines().skip(1)) {
            let is_pinned = line.contains('=') && !line.contains("workspace");
            assert!(!is_pinned, "{}: {line}", path.display());
        }
    }
}

#[test]
fn documents_link_only_to_files_that_exist() {
    for path in tracked(".")
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "md"))
    {
        let text = read(&path);
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let target = target.split('#').next().unwrap();
            let is_elsewhere = target.is_empty() || target.contains("://");
            let file = path.parent().unwrap().join(target);
            assert!(
                is_elsewhere || file.exists(),
                "{} links to {target}",
                path.display()
            );
        }
    }
}

fn rust_files() -> Vec<PathBuf> {
    let files: Vec<_> = tracked(".")
        .into_iter()
        .filter(|path| is_rust(path))
        .collect();
    assert!(files.len() > 20, "the tree's files are listed by git");
    files
}

fn tracked(folder: &str) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            folder,
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    names
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(|name| root().join(name))
        .filter(|path| path.exists())
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|kind| kind == "rs")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn shown(paths: impl Iterator<Item = PathBuf>) -> Vec<String> {
    paths.map(|path| path.display().to_string()).collect()
}

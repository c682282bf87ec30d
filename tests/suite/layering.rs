//! A crate imports only crates of a strictly lower layer, and what is fenced only where the fence is open.
//!
//! The layers are those of `docs/ARCHITECTURE.md` and stand in each manifest. Dev-dependencies are free: they are not
//! linked into a program.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// A package, and the only ones of ours that may import it. The layer number alone would not keep the controller from
/// `sealing`: the fence is what protects the keys.
const FENCES: &[(&str, &[&str])] = &[
    ("destinations", &["ops"]),
    ("repository", &["ops"]),
    ("sealing", &["ops", "repository"]),
    ("sources", &["agentd", "ops"]),
    ("testkit", &[]),
    ("axum", &["controller"]),
    ("clap", &["agentd", "controller", "ctl", "tests", "xtask"]),
    ("rusqlite", &["controller", "ledger"]),
    ("rust-s3", &["destinations"]),
    ("ssh2", &["destinations"]),
    ("zbus", &["agentd"]),
];

#[test]
fn imports_point_down_and_stop_at_fences() {
    let metadata = cargo_metadata();
    assert_eq!(faults(&metadata), Vec::<String>::new());
}

#[test]
fn import_through_a_fence_or_upwards_is_found() {
    let mut metadata = cargo_metadata();
    for package in metadata["packages"].as_array_mut().unwrap() {
        let wrong = match package["name"].as_str().unwrap() {
            "controller" => "sealing",
            "model" => "edge",
            _ => continue,
        };
        let imports = package["dependencies"].as_array_mut().unwrap();
        imports.push(serde_json::json!({ "name": wrong, "kind": null }));
    }
    let found = faults(&metadata);
    assert!(
        found.contains(&"controller must not import sealing".to_owned()),
        "{found:?}"
    );
    assert!(
        found.contains(&"model must not import edge".to_owned()),
        "{found:?}"
    );
}

#[test]
fn every_fence_stands_around_something() {
    let metadata = cargo_metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: Vec<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    for (_, allowed) in FENCES {
        for name in *allowed {
            assert!(
                ours.contains(name),
                "a fence is open for {name}, which is no package"
            );
        }
    }
}

fn faults(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().unwrap();
    let layers: BTreeMap<&str, u64> = packages.iter().map(name_and_layer).collect();
    let mut faults = Vec::new();
    for package in packages {
        let importer = package["name"].as_str().unwrap();
        for dependency in package["dependencies"].as_array().unwrap() {
            let imported = dependency["name"].as_str().unwrap();
            let points_up = layers
                .get(imported)
                .is_some_and(|layer| layers[importer] <= *layer);
            let is_fenced = FENCES
                .iter()
                .any(|(name, allowed)| *name == imported && !allowed.contains(&importer));
            if dependency["kind"] != "dev" && (points_up || is_fenced) {
                faults.push(format!("{importer} must not import {imported}"));
            }
        }
    }
    faults
}

fn cargo_metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn name_and_layer(package: &Value) -> (&str, u64) {
    let name = package["name"].as_str().unwrap();
    let layer = package["metadata"]["layer"].as_u64();
    (
        name,
        layer.unwrap_or_else(|| panic!("{name}: no layer in [package.metadata]")),
    )
}

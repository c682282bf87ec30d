//! Every driver keeps the promises of `edge::ObjectStore`, each on the real thing.

use destinations::{LocalStore, S3Options, S3Store};
use edge::{ObjectName, ObjectStore as _, StoreFault};
use lab::Garage;
use model::Secret;
use testkit::object_store_conformance;

fn options(garage: &Garage, path: &str) -> S3Options {
    S3Options {
        endpoint: garage.endpoint.clone(),
        region: garage.region.to_owned(),
        bucket: garage.bucket.clone(),
        path: path.to_owned(),
        path_style: true,
        access_key_id: garage.access_key.clone(),
        secret_access_key: Secret::new(garage.secret_key.clone()),
    }
}

#[test]
fn a_directory_keeps_the_promises_of_a_store() {
    let directory = tempfile::tempdir().unwrap();
    object_store_conformance(&LocalStore::open(directory.path()).unwrap());
}

#[test]
fn a_bucket_keeps_the_promises_of_a_store() {
    let garage = Garage::start_here("conformance").unwrap();
    object_store_conformance(&S3Store::open(&options(&garage, "a/place")).unwrap());
    object_store_conformance(&S3Store::open(&options(&garage, "")).unwrap());
}

#[test]
fn two_places_in_one_bucket_do_not_see_each_other() {
    let garage = Garage::start_here("places").unwrap();
    let first = S3Store::open(&options(&garage, "one")).unwrap();
    let second = S3Store::open(&options(&garage, "one-more")).unwrap();
    let name = ObjectName::new("d/a").unwrap();
    first.put(&name, b"x").unwrap();
    assert_eq!(second.size(&name).unwrap(), None);
    let mut seen = 0;
    second.list("", &mut |_| seen += 1).unwrap();
    assert_eq!(seen, 0);
}

#[test]
fn a_listing_goes_on_behind_its_first_page() {
    let garage = Garage::start_here("pages").unwrap();
    let store = S3Store::open(&options(&garage, "many")).unwrap();
    for number in 0..1005 {
        let name = ObjectName::new(format!("d/{number:04}")).unwrap();
        store.put(&name, b"x").unwrap();
    }
    let mut seen = 0;
    store.list("d/", &mut |_| seen += 1).unwrap();
    assert_eq!(seen, 1005);
}

#[test]
fn a_wrong_secret_is_refused_with_the_store_s_own_words() {
    let garage = Garage::start_here("secrets").unwrap();
    let mut wrong = options(&garage, "");
    wrong.secret_access_key = Secret::new("0".repeat(64));
    let store = S3Store::open(&wrong).unwrap();
    let error = store.put(&ObjectName::new("a").unwrap(), b"x").unwrap_err();
    assert_eq!(error.fault, StoreFault::Denied, "{error:?}");
    let cause = error.source.to_string();
    assert!(cause.starts_with("HTTP 403: "), "{cause}");
}

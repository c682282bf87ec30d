//! What people and browsers may do, over real TLS.

use crate::support::{PASSWORD, cookie_of, fresh, signed_in};
use serde_json::json;

#[tokio::test]
async fn the_first_user_needs_the_token_which_works_once() {
    let world = fresh().await;
    let (status, state) = world.call("GET", "/api/v1/setup", None).await;
    assert_eq!((status, &state["needed"]), (200, &json!(true)));
    let with =
        |token: &str, password: &str| json!({"token": token, "name": "anna", "password": password});
    let token = world.token();
    let (status, problem) = world
        .call("POST", "/api/v1/setup", Some(&with("guess", PASSWORD)))
        .await;
    assert_eq!((status, &problem["code"]), (403, &json!("wrong_token")));
    let (status, problem) = world
        .call("POST", "/api/v1/setup", Some(&with(&token, "short")))
        .await;
    assert_eq!(
        (status, &problem["errors"][0]["pointer"]),
        (422, &json!("/password"))
    );

    let made = world
        .send("POST", "/api/v1/setup", Some(&with(&token, PASSWORD)))
        .await;
    assert_eq!(made.status(), 201);
    let cookie = made.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("__Host-backstay="), "{cookie}");
    for part in ["Path=/", "Secure", "HttpOnly", "SameSite=Strict"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let (_, state) = world.call("GET", "/api/v1/setup", None).await;
    assert_eq!(state["needed"], false);
    let (status, problem) = world
        .call("POST", "/api/v1/setup", Some(&with(&token, PASSWORD)))
        .await;
    assert_eq!((status, &problem["code"]), (409, &json!("set_up")));
}

#[tokio::test]
async fn signing_in_tells_nothing_about_names_and_signing_out_ends_it() {
    let mut world = signed_in().await;
    let sign_in = |name: &str, password: &str| json!({"name": name, "password": password});
    let wrong = sign_in("anna", "not the password");
    let unknown = sign_in("nobody", "not the password");
    let (status, one) = world.call("POST", "/api/v1/session", Some(&wrong)).await;
    let (_, other) = world.call("POST", "/api/v1/session", Some(&unknown)).await;
    assert_eq!((status, &one["code"]), (401, &json!("wrong_password")));
    assert_eq!(one, other);

    let right = sign_in("anna", PASSWORD);
    let response = world.send("POST", "/api/v1/session", Some(&right)).await;
    assert_eq!(response.status(), 201);
    world.cookie = cookie_of(&response);
    let (status, shown) = world.call("GET", "/api/v1/session", None).await;
    assert_eq!((status, &shown["user"]["name"]), (200, &json!("anna")));
    assert_eq!(world.call("DELETE", "/api/v1/session", None).await.0, 204);
    let (status, problem) = world.call("GET", "/api/v1/session", None).await;
    assert_eq!((status, &problem["code"]), (401, &json!("signed_out")));
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let world = signed_in().await;
    let wrong = json!({"name": "anna", "password": "not the password"});
    let mut statuses = Vec::new();
    for _ in 0..7 {
        statuses.push(world.call("POST", "/api/v1/session", Some(&wrong)).await.0);
    }
    assert_eq!(
        statuses.iter().filter(|status| **status == 401).count(),
        5,
        "{statuses:?}"
    );
    assert_eq!(statuses.last(), Some(&429));
}

#[tokio::test]
async fn nothing_is_open_without_a_session() {
    let mut world = signed_in().await;
    world.cookie = String::new();
    for (method, path) in [
        ("GET", "/api/v1/servers"),
        ("GET", "/api/v1/runs"),
        ("GET", "/api/v1/tasks"),
        ("GET", "/api/v1/events"),
        ("POST", "/api/v1/join-codes"),
        ("DELETE", "/api/v1/servers/srv_x"),
    ] {
        let (status, problem) = world.call(method, path, Some(&json!({}))).await;
        assert_eq!(
            (status, &problem["code"]),
            (401, &json!("signed_out")),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn changes_from_other_sites_are_refused() {
    let world = signed_in().await;
    let body = json!({"server_name": "web1"});
    let bare = world
        .http
        .post(world.url("/api/v1/join-codes"))
        .header("cookie", &world.cookie)
        .json(&body);
    assert_eq!(bare.send().await.unwrap().status(), 403);
    let foreign = world
        .request("POST", "/api/v1/join-codes")
        .header("sec-fetch-site", "cross-site")
        .json(&body);
    assert_eq!(foreign.send().await.unwrap().status(), 403);
    assert_eq!(
        world
            .call("POST", "/api/v1/join-codes", Some(&body))
            .await
            .0,
        201
    );
}

#[tokio::test]
async fn pages_carry_the_strict_policy() {
    let world = fresh().await;
    for path in ["/", "/servers/srv_1"] {
        let page = world.send("GET", path, None).await;
        assert_eq!(page.status(), 200);
        let headers = page.headers();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert!(
            policy.contains("require-trusted-types-for 'script'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["cross-origin-opener-policy"], "same-origin");
        let etag = headers["etag"].clone();
        let again = world.request("GET", path).header("if-none-match", etag);
        assert_eq!(again.send().await.unwrap().status(), 304);
    }
    assert_eq!(world.send("GET", "/missing.js", None).await.status(), 404);
    let (status, problem) = world.call("GET", "/api/v1/missing", None).await;
    assert_eq!((status, &problem["code"]), (404, &json!("not_found")));
    let (status, problem) = world.call("PUT", "/api/v1/setup", None).await;
    assert_eq!(
        (status, &problem["code"]),
        (405, &json!("method_not_allowed"))
    );
    let (status, document) = world.call("GET", "/api/openapi.json", None).await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
}

#[tokio::test]
async fn a_schedule_is_changed_only_by_who_saw_its_last_state() {
    let world = signed_in().await;
    let (_, id) = world.join("web1", 2).await;
    let list = format!("/api/v1/servers/{id}/schedules");
    let one = format!("{list}/nightly");
    let mut schedule = json!({"name": "nightly", "scope": "full", "when": "daily 02:00",
                              "destinations": ["local"], "keep": {"last": 7}});
    let made = world.send("POST", &list, Some(&schedule)).await;
    assert_eq!(
        (made.status().as_u16(), &made.headers()["etag"]),
        (201, &"\"1\"".parse().unwrap())
    );
    let (status, problem) = world.call("POST", &list, Some(&schedule)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("name_taken")));

    schedule["when"] = json!("daily 03:00");
    let (status, problem) = world.call("PUT", &one, Some(&schedule)).await;
    assert_eq!(
        (status, &problem["code"]),
        (428, &json!("if_match_required"))
    );
    let put = |etag: &'static str| {
        world
            .request("PUT", &one)
            .header("if-match", etag)
            .json(&schedule)
    };
    let (status, changed) = crate::support::outcome(put("\"1\"").send().await.unwrap()).await;
    assert_eq!((status, &changed["when"]), (200, &json!("daily 03:00")));
    assert!(changed["toml"].as_str().unwrap().contains("daily 03:00"));
    let (status, problem) = crate::support::outcome(put("\"1\"").send().await.unwrap()).await;
    assert_eq!((status, &problem["code"]), (412, &json!("changed")));

    let gone = world
        .request("DELETE", &one)
        .header("if-match", "\"2\"")
        .send()
        .await
        .unwrap();
    assert_eq!(gone.status(), 204);
    assert_eq!(world.call("GET", &one, None).await.0, 404);
    let (_, server) = world
        .call("GET", &format!("/api/v1/servers/{id}"), None)
        .await;
    assert_eq!(server["generation"]["saved"], 3);
}

#[tokio::test]
async fn a_wrong_schedule_is_refused_field_by_field() {
    let world = signed_in().await;
    let (_, id) = world.join("web1", 2).await;
    let list = format!("/api/v1/servers/{id}/schedules");
    let wrong =
        json!({"name": "nightly", "scope": "full", "when": "sometimes", "destinations": []});
    let (status, problem) = world.call("POST", &list, Some(&wrong)).await;
    assert_eq!((status, &problem["code"]), (422, &json!("invalid")));
    let errors = problem["errors"].as_array().unwrap();
    let pointers: Vec<_> = errors
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(pointers, ["/when", "/destinations"]);
    let unknown = json!({"name": "x", "scope": "full", "when": "daily 02:00",
                         "destinations": ["local"], "command": "rm"});
    let (status, problem) = world.call("POST", &list, Some(&unknown)).await;
    assert_eq!((status, &problem["code"]), (400, &json!("malformed_body")));
}

#[tokio::test]
async fn browsers_hear_what_happens() {
    let world = signed_in().await;
    let (_, id) = world.join("web1", 2).await;
    let mut stream = world.send("GET", "/api/v1/events", None).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let schedule = json!({"name": "nightly", "scope": "web", "when": "daily 02:00",
                          "destinations": ["local"]});
    let path = format!("/api/v1/servers/{id}/schedules");
    assert_eq!(world.call("POST", &path, Some(&schedule)).await.0, 201);
    let mut heard = String::new();
    while !heard.contains("event: schedule.changed") {
        let part = stream.chunk().await.unwrap().unwrap();
        heard.push_str(std::str::from_utf8(&part).unwrap());
    }
    assert!(heard.contains("event: hello"), "{heard}");
    let id = heard
        .rsplit("id: ")
        .next()
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_owned();
    let before: u64 = id.parse::<u64>().unwrap() - 1;
    let mut again = world
        .request("GET", "/api/v1/events")
        .header("last-event-id", before.to_string())
        .send()
        .await
        .unwrap();
    let mut heard = String::new();
    while !heard.contains("event: schedule.changed") {
        heard.push_str(std::str::from_utf8(&again.chunk().await.unwrap().unwrap()).unwrap());
    }
    let mut lost = world
        .request("GET", "/api/v1/events")
        .header("last-event-id", "7")
        .send()
        .await
        .unwrap();
    let mut heard = String::new();
    while !heard.contains("event: reset") {
        heard.push_str(std::str::from_utf8(&lost.chunk().await.unwrap().unwrap()).unwrap());
    }
}

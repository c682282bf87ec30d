//! Tests of the join code and of the handshake.

use proptest::prelude::*;

use super::*;

fn controller() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

fn agent() -> SigningKey {
    SigningKey::from_seed(&[2; 32])
}

fn code() -> JoinCode {
    JoinCode::new(
        [9; 16],
        controller().public().hash(),
        "backup.example.net:8443".into(),
    )
    .unwrap()
}

fn request() -> JoinRequest {
    let host = Host {
        hostname: "web1".into(),
        os: "Debian GNU/Linux 13 (trixie)".into(),
        version: "0.1.0".into(),
    };
    JoinRequest::new(&code(), &agent(), Nonce::from_bytes([8; 16]), host)
}

fn record() -> JoinRecord {
    JoinRecord {
        protocol: PROTOCOL_VERSION,
        agent: agent().public().agent_id(),
        server_name: ServerName::new("web1").unwrap(),
        controller: controller().public(),
        host: "backup.example.net:8443".into(),
        certificate: CertificateHash::of(b"certificate"),
        joined_at: Instant::from_secs(1_700_000_000),
    }
}

#[test]
fn the_wire_forms_stay() {
    insta::assert_snapshot!(code().reveal());
    insta::assert_snapshot!(serde_json::to_string_pretty(&request()).unwrap());
    insta::assert_snapshot!(serde_json::to_string_pretty(&record()).unwrap());
}

#[test]
fn both_sides_believe_each_other() {
    let request = request();
    request
        .verify(&code().key(), controller().public().hash())
        .unwrap();
    let answer = JoinAnswer::new(&request, &code().key(), &controller(), &record());
    let kept = answer
        .verify(&request, &code(), &CertificateHash::of(b"certificate"))
        .unwrap();
    assert_eq!(kept, record());
}

#[test]
fn the_token_never_crosses_the_wire() {
    let text = serde_json::to_string(&request()).unwrap();
    let token = [9u8; 16];
    for encoded in [
        BASE32_NOPAD.encode(&token),
        BASE64URL_NOPAD.encode(&token),
        data_encoding::HEXLOWER.encode(&token),
        BASE64URL_NOPAD.encode(code().key().secret()),
    ] {
        assert!(!text.contains(&encoded));
    }
}

#[test]
fn an_agent_without_the_token_is_not_believed() {
    let guessed = JoinCode::new(
        [7; 16],
        controller().public().hash(),
        code().host().to_owned(),
    )
    .unwrap();
    let mut request = request();
    assert_eq!(
        request.verify(&guessed.key(), controller().public().hash()),
        Err(JoinError::Proof)
    );
    request.host.hostname = "other".into();
    assert_eq!(
        request.verify(&code().key(), controller().public().hash()),
        Err(JoinError::Proof)
    );
}

#[test]
fn a_machine_in_the_middle_is_not_believed() {
    let request = request();
    let seen = CertificateHash::of(b"certificate");
    let intruder = SigningKey::from_seed(&[66; 32]);
    let guessed = JoinKey::from_parts(*code().key().id(), [0; 32]);

    let other_key = JoinAnswer::new(&request, &code().key(), &intruder, &record());
    assert_eq!(
        other_key.verify(&request, &code(), &seen),
        Err(JoinError::WrongController)
    );

    let no_token = JoinAnswer::new(&request, &guessed, &controller(), &record());
    assert_eq!(
        no_token.verify(&request, &code(), &seen),
        Err(JoinError::Proof)
    );

    let relayed = JoinAnswer::new(&request, &code().key(), &controller(), &record());
    let shown = CertificateHash::of(b"of the machine in the middle");
    assert_eq!(
        relayed.verify(&request, &code(), &shown),
        Err(JoinError::Intercepted)
    );
}

#[test]
fn other_texts_are_not_codes() {
    assert_eq!(JoinCode::parse("hello"), Err(JoinCodeError::Prefix));
    assert_eq!(JoinCode::parse("bsj1-"), Err(JoinCodeError::Damaged));
    let text = code().reveal();
    assert_eq!(
        JoinCode::parse(&text[..text.len() - 1]),
        Err(JoinCodeError::Damaged)
    );
    assert_eq!(
        JoinCode::parse(&text.replace("bsj1-", "bsj1-a")),
        Err(JoinCodeError::Damaged)
    );
}

proptest! {
    #[test]
    fn codes_survive_the_clipboard(token: [u8; 16], hash: [u8; 16], host in "[a-z0-9.-]{1,200}:[0-9]{1,5}") {
        let code = JoinCode::new(token, KeyHash::from_bytes(hash), host).unwrap();
        let pasted = format!("  {}\n", code.reveal().to_ascii_uppercase());
        prop_assert_eq!(JoinCode::parse(&pasted).unwrap(), code);
    }

    #[test]
    fn no_text_breaks_the_reader(text: String) {
        let _read = JoinCode::parse(&format!("bsj1-{text}"));
    }
}

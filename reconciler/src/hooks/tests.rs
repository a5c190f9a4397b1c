use tower::ServiceExt;

use super::*;

const BODY: &[u8] = br#"{"ref":"refs/heads/main"}"#;

fn secret() -> Secret {
    Secret::new("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=").unwrap()
}

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

fn github(key: &str, body: &[u8]) -> HeaderMap {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let tag = HEXLOWER.encode(hmac::sign(&key, body).as_ref());
    headers(&[("x-hub-signature-256", format!("sha256={tag}"))])
}

fn gitlab(key: &[u8], time: i64, body: &[u8]) -> HeaderMap {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut message = format!("msg_1.{time}.").into_bytes();
    message.extend_from_slice(body);
    let tag = BASE64.encode(hmac::sign(&key, &message).as_ref());
    headers(&[
        ("webhook-id", "msg_1".to_owned()),
        ("webhook-timestamp", time.to_string()),
        ("webhook-signature", format!("v1,AAAA v1,{tag}")),
    ])
}

/// The example of GitHub's documentation, "Validating webhook deliveries".
#[test]
fn githubs_published_example_is_admitted() {
    let secret = Secret::new("It's a Secret to Everybody").unwrap();
    let example = headers(&[(
        "x-hub-signature-256",
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17".to_owned(),
    )]);
    assert!(secret.admits(&example, b"Hello, World!", now()));
    assert!(!secret.admits(&example, b"Hello, World.", now()));
}

#[test]
fn only_who_has_the_secret_is_admitted() {
    let text = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let key = b"01234567890123456789012345678901";
    let time = now().as_second();
    let token = |text: &str| headers(&[("x-gitlab-token", text.to_owned())]);
    let mut mixed = gitlab(b"another key", time, BODY);
    mixed.extend(token(text));

    for (case, headers, admitted) in [
        ("nothing", HeaderMap::new(), false),
        ("GitHub", github(text, BODY), true),
        ("GitHub, another secret", github("another", BODY), false),
        ("GitHub, another body", github(text, b"{}"), false),
        ("GitLab token", token(text), true),
        ("GitLab token, another", token("whsec_another"), false),
        ("GitLab token, empty", token(""), false),
        ("signed", gitlab(key, time, BODY), true),
        ("signed, 5 minutes old", gitlab(key, time - 300, BODY), true),
        ("signed, older", gitlab(key, time - 301, BODY), false),
        ("signed, ahead", gitlab(key, time + 301, BODY), false),
        ("signed, far away", gitlab(key, i64::MIN, BODY), false),
        ("signed, another body", gitlab(key, time, b"{}"), false),
        (
            "signed, not decoded",
            gitlab(text.as_bytes(), time, BODY),
            false,
        ),
        ("bad signature with a good token", mixed, false),
    ] {
        assert_eq!(secret().admits(&headers, BODY, now()), admitted, "{case}");
    }
}

#[test]
fn a_short_secret_is_refused() {
    assert!(matches!(Secret::new("hunter2"), Err(SecretError::Short)));
}

#[tokio::test]
async fn the_statuses_are_those_of_the_contract() {
    let router = router(secret(), Arc::default(), Failures::default());
    let ask = async |method: &str, path: &str, headers: HeaderMap, body: &[u8]| {
        let request = http::Request::builder().method(method).uri(path);
        let mut request = request.body(axum::body::Body::from(body.to_vec())).unwrap();
        *request.headers_mut() = headers;
        let answer = router.clone().oneshot(request).await.unwrap();
        answer.status().as_u16()
    };
    let text = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let long = vec![b' '; MAX_BODY + 1];
    let good = || github(text, BODY);
    assert_eq!(ask("POST", "/hooks/git", good(), BODY).await, 202);
    assert_eq!(ask("POST", "/hooks/git", good(), b"{}").await, 401);
    assert_eq!(ask("POST", "/hooks/git", HeaderMap::new(), BODY).await, 401);
    assert_eq!(ask("POST", "/hooks/none", good(), BODY).await, 404);
    assert_eq!(ask("GET", "/hooks/git", good(), BODY).await, 405);
    let signed = github(text, &long);
    assert_eq!(ask("POST", "/hooks/git", signed, &long).await, 413);
    let mut last = 202;
    for _ in 0..100 {
        last = ask("POST", "/hooks/git", good(), BODY).await;
        if last != 202 {
            break;
        }
    }
    assert_eq!(last, 429);
}

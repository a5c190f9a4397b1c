use super::*;

fn http(path: &str) -> HealthCheck {
    HealthCheck {
        unit: "web.service".to_owned(),
        container: "web".to_owned(),
        purpose: Purpose::Liveness,
        action: Action::Http {
            tls: false,
            host: None,
            port: 8080,
            path: path.to_owned(),
            headers: Vec::new(),
        },
        delay_seconds: 0,
        period_seconds: 10,
        timeout_seconds: 1,
        failures: 3,
        successes: 1,
    }
}

fn with(change: impl FnOnce(&mut HealthCheck)) -> Result<(), String> {
    let mut check = http("/healthz?full=1");
    change(&mut check);
    check.check()
}

fn does(action: Action) -> Result<(), String> {
    with(|check| check.action = action)
}

#[test]
fn what_a_device_could_not_do_is_refused() {
    with(|_| {}).expect("it is good");
    let numbers: [fn(&mut HealthCheck); 5] = [
        |check| check.period_seconds = 0,
        |check| check.timeout_seconds = 0,
        |check| check.failures = 0,
        |check| check.successes = 0,
        |check| check.successes = 2,
    ];
    for (at, number) in numbers.into_iter().enumerate() {
        with(number).expect_err(&at.to_string());
    }
    with(|check| (check.successes, check.purpose) = (2, Purpose::Readiness)).expect("readiness");
    with(|check| check.container = "-x".to_owned()).expect_err("no name");
    for path in ["", "healthz", "/a b", "/a#b", "/\u{e9}", "/a\r\nHost: x"] {
        http(path).check().expect_err(path);
    }
    for (host, good) in [
        ("::1", true),
        ("db.example", true),
        ("", false),
        ("a/b", false),
    ] {
        let tcp = does(Action::Tcp {
            host: Some(host.to_owned()),
            port: 1,
        });
        assert_eq!(tcp.is_ok(), good, "{host}");
    }
    does(Action::Tcp {
        host: None,
        port: 0,
    })
    .expect_err("no port");
    for command in [vec![], vec![String::new()], vec!["a\0".to_owned()]] {
        does(Action::Exec { command }).expect_err("no command");
    }
}

#[test]
fn a_header_cannot_be_two() {
    for (name, value, good) in [
        ("X-Probe", "a b\tc", true),
        ("X-Probe", "", true),
        ("", "a", false),
        ("X Probe", "a", false),
        ("X-Probe", "a\r\nHost: b", false),
    ] {
        let (name, value) = (name.to_owned(), value.to_owned());
        assert_eq!(Header { name, value }.is_good(), good);
    }
}

#[test]
fn json_says_it_in_few_words() {
    let bytes = serde_json::to_string(&http("/")).expect("JSON");
    let expected = r#"{"unit":"web.service","container":"web","purpose":"liveness","action":{"http":{"port":8080,"path":"/"}},"delay_seconds":0,"period_seconds":10,"timeout_seconds":1,"failures":3,"successes":1}"#;
    assert_eq!(bytes, expected);
    let unknown = expected.replace("\"port\"", "\"sort\":1,\"port\"");
    serde_json::from_str::<HealthCheck>(&unknown).expect_err("a field that is not known");
}

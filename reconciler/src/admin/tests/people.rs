//! How people approve, deny and revoke devices, and revoke tokens.

use super::*;

#[tokio::test]
async fn who_comes_back_without_being_in_git_is_let_in_with_its_set_or_not_at_all() {
    let bench = Bench::new();
    let ask = async |device: &str| {
        let machine = TestDevice::new(device);
        let certified = crate::enrol::Certified {
            device: machine.name.clone(),
            key: machine.fingerprint(),
        };
        let asked = bench.fixture.enroller.enrol(
            machine.request(None),
            Some(&certified),
            HERE,
            Timestamp::now(),
        );
        asked.await.unwrap();
    };
    ask("a").await;
    ask("b").await;
    let restore = async || {
        let restored: RestoredDevices = bench
            .client
            .post("/v1/approve-restored", &())
            .await
            .unwrap();
        let approved: Vec<_> = restored.approved.into_iter().map(|a| a.device).collect();
        (approved, restored.left)
    };
    // Git was not read yet, so it is not known who is in it
    let (approved, left) = restore().await;
    assert_eq!((approved.len(), left.len()), (0, 2));

    let known = |in_git| Described {
        in_git,
        ..Described::default()
    };
    let described = [(name("a"), known(true)), (name("c"), known(false))];
    bench.fixture.index.describe(Arc::new(described.into()));
    let (approved, left) = restore().await;
    assert_eq!(approved, [name("a")]);
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].request.device, name("b"));
    let help = &left[0].problem.help;
    assert!(help.contains("flotta approve default/b --set"), "{help}");
    // it is not in the inventory, so no empty manifest is signed for it
    let inventory = async || bench.fixture.store.inventory().await.unwrap();
    assert_eq!(inventory().await.len(), 1);
    let approval = Approval {
        device: name("b"),
        key: None,
        set: Some("shops".to_owned()),
        labels: BTreeMap::new(),
        replace: false,
    };
    let _: Decided = bench.client.post("/v1/approve", &approval).await.unwrap();
    assert_eq!(inventory().await[1].set.as_deref(), Some("shops"));
}

#[tokio::test]
async fn people_let_in_turn_away_and_revoke() {
    let bench = Bench::new();
    let (first, second) = (TestDevice::new("a"), TestDevice::new("b"));
    for machine in [&first, &second] {
        assert!(matches!(
            bench.ask(machine, None).await,
            Enrolment::Pending { .. }
        ));
    }
    assert_eq!(bench.list::<Request>("").await.len(), 2);
    let approval = Approval {
        device: name("a"),
        key: None,
        set: Some("tills".to_owned()),
        labels: BTreeMap::from([("site".to_owned(), "berlin".to_owned())]),
        replace: false,
    };
    let decided: Decided = bench.client.post("/v1/approve", &approval).await.unwrap();
    assert_eq!(decided.fingerprint, first.fingerprint().hex());
    let denial = Denial {
        device: name("b"),
        key: None,
        reason: "not ours".to_owned(),
    };
    bench
        .client
        .post::<_, Decided>("/v1/deny", &denial)
        .await
        .unwrap();
    assert!(bench.list::<Request>("").await.is_empty());
    let reason = "not ours".to_owned();
    assert_eq!(bench.ask(&second, None).await, Enrolment::Denied { reason });

    let devices: Vec<Device> = bench.list("?selector=site%3Dberlin").await;
    assert_eq!(devices[0].status.sets, ["tills"]);
    let revocation = Revocation { device: name("a") };
    bench
        .client
        .post::<_, Decided>("/v1/revoke", &revocation)
        .await
        .unwrap();
    // it is revoked, and shown only when asked for by state or name
    assert!(bench.list::<Device>("").await.is_empty());
    for query in ["?state=ready,revoked", "?namespace=default&name=a"] {
        let devices: Vec<Device> = bench.list(query).await;
        assert_eq!(devices[0].status.state, "Revoked", "{query}");
    }
    // repeating the decision adds no second event
    let again: Decided = bench.client.post("/v1/revoke", &revocation).await.unwrap();
    assert!(again.again);
    let events = bench.fixture.events().await;
    let revoked = events.iter().filter(|event| event.0 == "Revoked");
    assert_eq!(revoked.count(), 1);
    let none = Revocation {
        device: name("none"),
    };
    let error = bench
        .client
        .post::<_, Decided>("/v1/revoke", &none)
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    // the event names the person who decided
    let events = bench.fixture.events().await;
    let by = |reason: &str| {
        let event = events.iter().find(|event| event.0 == reason);
        let message = &event.unwrap().1;
        message.contains("by root") || message.contains("by user ")
    };
    assert!(
        by("Joined") && by("JoinDenied") && by("Revoked"),
        "{events:?}"
    );
}

#[tokio::test]
async fn tokens_are_made_on_terms_that_can_be_rendered() {
    let bench = Bench::new();
    let made: TokenCreated = bench.client.post("/v1/tokens", &token()).await.unwrap();
    assert_eq!(made.join.server, "https://edge.example.com:7443");
    assert!(made.join.token.is_some());
    let refuse = async |request: TokenRequest| {
        let answer = bench
            .client
            .post::<_, TokenCreated>("/v1/tokens", &request)
            .await;
        match answer.unwrap_err() {
            ClientError::Refused(status, problem) => (status.as_u16(), problem.message),
            other => panic!("{other:?}"),
        }
    };
    for wrong in [
        TokenRequest {
            ttl_seconds: 0,
            ..token()
        },
        TokenRequest {
            ttl_seconds: 31 * 24 * 3600,
            ..token()
        },
        TokenRequest {
            set: Some("Tills!".to_owned()),
            ..token()
        },
        TokenRequest {
            server: Some("http://x".to_owned()),
            ..token()
        },
        TokenRequest {
            labels: BTreeMap::from([("a".to_owned(), "b c".to_owned())]),
            ..token()
        },
    ] {
        assert_eq!(refuse(wrong).await.0, 400);
    }
    assert_eq!(bench.fixture.store.tokens().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_token_is_listed_with_who_made_it_and_is_taken_back() {
    let bench = Bench::new();
    let made: TokenCreated = bench.client.post("/v1/tokens", &token()).await.unwrap();
    let secret = made.join.token.unwrap();
    let tokens = bench.list::<JoinToken>("").await;
    let (id, status) = (tokens[0].metadata.name.clone(), &tokens[0].status);
    assert_eq!(status.state, "Open");
    assert!(!status.created_by.is_empty());
    let all = serde_json::to_string(&tokens).unwrap();
    assert!(!all.contains(secret.expose()), "{all}");

    let revocation = request::TokenRevocation { token: id };
    for _ in 0..2 {
        let path = "/v1/tokens/revoke";
        let revoked: JoinToken = bench.client.post(path, &revocation).await.unwrap();
        assert_eq!(revoked.status.state, "Revoked");
    }
    let asked = TestDevice::new("a").request(Some(secret));
    let refused = bench
        .fixture
        .enroller
        .enrol(asked, None, HERE, Timestamp::now())
        .await;
    assert_eq!(refused.unwrap_err().code(), code::TOKEN_REVOKED);
    let events = bench.fixture.events().await;
    let times = |reason: &str| events.iter().filter(|event| event.0 == reason).count();
    assert_eq!((times("TokenCreated"), times("TokenRevoked")), (1, 1));

    let none = request::TokenRevocation {
        token: "0".repeat(12),
    };
    let error = bench
        .client
        .post::<_, JoinToken>("/v1/tokens/revoke", &none)
        .await;
    assert!(error.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_clock_in_doubt_is_accepted_by_a_person_who_is_named() {
    let bench = Bench::new();
    let accept = async || -> ClockAccepted {
        let path = "/v1/clock/accept";
        bench.client.post(path, &()).await.unwrap()
    };
    assert_eq!(accept().await.doubt, None);
    let clock = bench.fixture.fleet.clock();
    // the last release was issued in the future
    clock.signed(Timestamp::now() + jiff::SignedDuration::from_hours(24 * 365));
    assert!(clock.look(Timestamp::now(), &[], 0).is_some());
    assert!(clock.check().is_err());
    let doubt = accept().await.doubt.expect("it was in doubt");
    assert_eq!(doubt.code, code::SERVER_CLOCK.id);
    assert!(clock.check().is_ok());
    let events = bench.list::<EventObject>("").await;
    let event = events
        .iter()
        .find(|event| event.status.reason == "ClockAccepted");
    let message = &event.expect("an event").status.message;
    assert!(message.contains("is right, says "), "{message}");
}

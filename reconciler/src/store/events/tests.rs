use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn filter(device: Option<&str>, since: Option<i64>, after: i64) -> EventFilter {
    EventFilter {
        device: device.map(|name| name.parse().unwrap()),
        since: since.map(at),
        after,
        limit: 3,
    }
}

/// Each kind of query uses an index, and returns the newest matching events.
#[tokio::test]
async fn events_are_found_without_a_look_at_all_of_them() {
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(data.path()).unwrap();
    // by the devices' clocks, so not in the order of arrival
    for (second, device) in [(9, "a"), (1, "b"), (8, "a"), (2, "b"), (7, "a"), (3, "a")] {
        let event = FleetEvent {
            id: 0,
            time: at(second),
            device: Some(device.parse().unwrap()),
            reason: "Applied".to_owned(),
            message: second.to_string(),
            warning: false,
        };
        store.add_event(event).await.unwrap();
    }
    let file = Connection::open(data.path().join("status.db")).unwrap();
    for (filter, index, expected) in [
        (filter(None, None, 0), "INTEGER PRIMARY KEY", "2 7 3"),
        (filter(None, None, 4), "INTEGER PRIMARY KEY", "7 3"),
        (filter(Some("a"), None, 0), "events_by_device", "8 7 3"),
        (filter(Some("a"), Some(8), 0), "events_by_device", "9 8"),
        (filter(None, Some(3), 0), "events_by_time", "8 7 3"),
        (filter(None, Some(8), 1), "events_by_time", "8"),
    ] {
        let plan = format!("EXPLAIN QUERY PLAN {}", filter.sql().replace("status.", ""));
        let mut query = file.prepare(&plan).unwrap();
        let rows = query.query_map((0, "", 0, 0), |row| row.get::<_, String>(3));
        let plan: Vec<String> = rows.unwrap().map(Result::unwrap).collect();
        assert!(
            plan[0].starts_with("SEARCH events") && plan[0].contains(index),
            "{filter:?}: {plan:?}"
        );
        let found = store.events(filter.clone()).await.unwrap().into_iter();
        let messages: Vec<_> = found.map(|event| event.message).collect();
        assert_eq!(messages.join(" "), expected, "{filter:?}");
    }
}

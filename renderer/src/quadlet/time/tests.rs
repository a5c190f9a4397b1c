use super::*;

/// What systemd accepts and what it refuses, one case a line: `ok calendar Mon..Fri 8:00`.
const CASES: &str = include_str!("tests.txt");

#[test]
fn times_are_read_as_systemd_reads_them() {
    let mut wrong = Vec::new();
    let cases = CASES.lines().filter(|line| !line.starts_with('#'));
    let mut count = 0;
    for case in cases {
        let mut words = case.splitn(3, ' ');
        let (Some(is_good), Some(kind), Some(text)) = (words.next(), words.next(), words.next())
        else {
            panic!("{case}");
        };
        let found = if kind == "span" {
            is_span(text)
        } else {
            is_calendar(text)
        };
        count += 1;
        if found != (is_good == "ok") {
            wrong.push(case);
        }
    }
    assert!(wrong.is_empty(), "{count} cases: {wrong:#?}");
    assert!(count > 100, "{count}");
}

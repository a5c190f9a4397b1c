use std::fmt::Write as _;

use super::*;

fn read(text: &str) -> Result<Vec<Document>, Box<Finding>> {
    decode("fleet/a.yaml", text.as_bytes())
}

#[test]
fn scalars_are_read_as_kubernetes_reads_them() {
    let text = "a: yes\nb: 0644\nc: 1_000\nd: 1.5\ne: \"0644\"\nf: ~\ng: NO\nh: -3\ni: 10Gi\nbase: &x {k: 1}\nmerged: {<<: *x, l: 2}\n";
    let documents = read(text).expect("YAML");
    let expected = serde_json::json!({
        "a": true, "b": 420, "c": 1000, "d": 1.5, "e": "0644", "g": false, "h": -3, "i": "10Gi",
        "base": {"k": 1}, "merged": {"k": 1, "l": 2},
    });
    assert_eq!(documents[0].value, expected);
}

#[test]
fn every_key_and_value_has_its_place() {
    let documents = read("---\n# empty\n---\na:\n  b/c:\n    - x\n    - yy\n").expect("YAML");
    assert_eq!(documents.len(), 1);
    let show = |place: Place| format!("{place}+{}", place.span().2);
    assert_eq!(show(documents[0].place("/a/b~1c/1")), "fleet/a.yaml:7:7+2");
    assert_eq!(
        show(documents[0].key_place("/a/b~1c")),
        "fleet/a.yaml:5:3+3"
    );
    assert_eq!(
        show(documents[0].place("/a/b~1c/7/gone")),
        "fleet/a.yaml:6:5+0"
    );
}

#[test]
fn invalid_yaml_is_reported_with_its_place() {
    let mut bomb = "a: &a [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
    for c in b'b'..=b'k' {
        let (this, last) = (char::from(c), char::from(c - 1));
        let nine = format!("*{last},").repeat(9);
        let _ = writeln!(bomb, "{this}: &{this} [{nine}]");
    }
    let deep = "[".repeat(5_000);
    let cases = [
        "a: [1, 2\nb: 3\n",
        "a: 1\na: 2\n",
        "a: .inf\n",
        "a: \t b: c\n",
        "? [a]\n: b\n",
        &bomb,
        &deep,
    ];
    let mut report = String::new();
    for text in cases {
        let finding = read(text).expect_err("not YAML");
        assert_eq!(finding.code, code::NOT_YAML);
        let _ = writeln!(report, "{}: {}", finding.place, finding.message);
    }
    let finding = decode("b.yaml", b"a: 1\nb: \xff\n").expect_err("not UTF-8");
    let _ = writeln!(report, "{}: {}", finding.place, finding.message);
    insta::assert_snapshot!(report);
}

#[test]
fn a_third_of_the_largest_fleet_fits_in_one_file() {
    let devices = |count: usize| {
        (0..count).fold(String::new(), |mut text, n| {
            let _ = writeln!(
                text,
                "--- {{kind: EdgeDevice, metadata: {{name: shop-{n}}}}}"
            );
            text
        })
    };
    // the library's own limit is 1,024
    assert_eq!(read(&devices(35_000)).expect("YAML").len(), 35_000);
    let finding = read(&devices(MAX_DOCUMENTS + 1)).expect_err("too many");
    assert_eq!(finding.code, code::LIMIT);
    assert_eq!(
        finding.message,
        "more than 50000 YAML documents in one file"
    );
    assert!(finding.help.is_some());
}

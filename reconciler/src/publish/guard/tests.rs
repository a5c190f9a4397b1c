use super::*;

/// The manifests of a fleet of one namespace, by name, with their workloads.
struct Table {
    contents: BTreeMap<Digest, Content>,
}

/// A number of devices with their manifest before and after: `left` when they leave Git.
type Group<'a> = (&'a str, usize, &'a str);

fn manifest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

impl Table {
    /// `runs` and `stopped` workloads of each manifest.
    fn new(manifests: &[(&str, &str, &str)]) -> Self {
        let contents = manifests.iter().map(|(name, runs, stopped)| {
            let runs = words(runs);
            let has = runs.union(&words(stopped)).cloned().collect();
            (manifest(name), Content { runs, has })
        });
        Self {
            contents: contents.collect(),
        }
    }

    fn losses(&self, steps: &[Group<'_>]) -> Losses {
        let names: Vec<DeviceName> = (0..)
            .take(steps.iter().map(|(_, count, _)| count).sum())
            .map(|n| format!("shops/shop-{n}").parse().unwrap())
            .collect();
        let each = steps
            .iter()
            .flat_map(|(before, count, after)| std::iter::repeat_n((before, after), *count));
        let steps: Vec<_> = each
            .zip(&names)
            .map(|((before, after), device)| Step {
                device,
                before: manifest(before),
                becomes: match *after {
                    "left" => Becomes::Leaves,
                    "left before" => Becomes::Left,
                    after => Becomes::Has(manifest(after)),
                },
            })
            .collect();
        losses(&steps, &self.contents)
    }

    fn held(&self, steps: &[Group<'_>]) -> String {
        let held = self.losses(steps).held(Guard::default());
        held.unwrap_or_default()
    }
}

#[test]
fn what_is_held_and_why() {
    let table = Table::new(&[
        ("both", "till web", ""),
        ("web", "web", ""),
        ("till", "till", ""),
        ("paused", "web", "till"),
        ("all paused", "", "till web"),
        ("nothing", "", ""),
    ]);
    let cases: &[(&[Group<'_>], &str)] = &[
        // nothing changes, or something is only added
        (&[("both", 40, "both")], ""),
        (&[("web", 40, "both"), ("nothing", 5, "web")], ""),
        // a workload is removed from all, from a third, and from less
        (
            &[("both", 40, "web")],
            "would remove till from 40 of 40 devices (limit 30 %)",
        ),
        (
            &[("both", 13, "web"), ("both", 27, "both")],
            "would remove till from 13 of 40 devices (limit 30 %)",
        ),
        (&[("both", 12, "web"), ("both", 28, "both")], ""),
        // the share is of the devices that run it
        (
            &[("both", 6, "web"), ("both", 4, "both"), ("web", 90, "web")],
            "would remove till from 6 of 10 devices (limit 30 %)",
        ),
        // a few devices may always lose one of several workloads
        (&[("both", 4, "web")], ""),
        (
            &[("both", 5, "web")],
            "would remove till from 5 of 5 devices (limit 30 %)",
        ),
        // its files stay, and it stops running
        (
            &[("both", 8, "paused")],
            "would stop till on 8 of 8 devices (limit 30 %)",
        ),
        // nothing is left to run, even on one device only
        (
            &[("web", 1, "nothing")],
            "would leave device shops/shop-0 without a workload",
        ),
        (
            &[("both", 3, "all paused"), ("web", 37, "web")],
            "would leave 3 devices without a workload",
        ),
        (
            &[("both", 40, "nothing")],
            "would remove till from 40 of 40 devices and 1 more workload (limit 30 %), and leave 40 devices without a workload",
        ),
        // a device that leaves Git keeps what it runs; the release is held only when many or all leave
        (&[("both", 1, "left"), ("both", 39, "both")], ""),
        (
            &[("both", 20, "left"), ("both", 20, "both")],
            "would remove till from 20 of 40 devices and 1 more workload (limit 30 %)",
        ),
        (&[("web", 3, "left")], "would leave no device in Git"),
        (
            &[("web", 1, "left"), ("web", 9, "left before")],
            "would leave no device in Git",
        ),
        (&[("nothing", 3, "left")], ""),
        // four lose one workload and four another: eight devices lose something
        (
            &[("both", 4, "web"), ("both", 4, "till"), ("web", 8, "web")],
            "would take workloads from 8 of 16 devices (limit 30 %)",
        ),
        // a workload that moves to another device is lost on the first
        (&[("both", 1, "till"), ("till", 1, "both")], ""),
    ];
    for (steps, expected) in cases {
        assert_eq!(table.held(steps), *expected, "{steps:?}");
    }
}

#[test]
fn namespaces_do_not_know_each_other() {
    let table = Table::new(&[("web", "web", ""), ("both", "web till", "")]);
    let names: Vec<DeviceName> = (0..10)
        .map(|n| format!("{}/d{n}", if n < 5 { "a" } else { "b" }))
        .map(|name| name.parse().unwrap())
        .collect();
    let steps: Vec<_> = names
        .iter()
        .map(|device| Step {
            device,
            before: manifest("both"),
            becomes: Becomes::Has(manifest(if device.namespace() == "a" {
                "web"
            } else {
                "both"
            })),
        })
        .collect();
    let found = losses(&steps, &table.contents);
    assert_eq!(found.workloads.len(), 1);
    assert_eq!(
        (found.workloads[0].devices.len(), found.workloads[0].of),
        (5, 5)
    );
}

#[test]
fn namespaces_that_each_lose_little_are_counted_together() {
    let table = Table::new(&[("web", "web", ""), ("both", "web till", "")]);
    let reason = |losing: usize| {
        let names = (0..400).map(|n| format!("n{}/d{}", n / 4, n % 4).parse().unwrap());
        let names: Vec<DeviceName> = names.collect();
        let steps = names.iter().enumerate().map(|(n, device)| Step {
            device,
            before: manifest("both"),
            becomes: Becomes::Has(manifest(if n < losing { "web" } else { "both" })),
        });
        losses(&steps.collect::<Vec<_>>(), &table.contents).held(Guard::default())
    };
    assert_eq!(
        reason(400).unwrap(),
        "would take workloads from 400 of 400 devices (limit 30 %)"
    );
    assert!(reason(121).is_some());
    assert_eq!(reason(120), None);
}

/// Checks every fleet of up to 24 devices in which some lose one of two workloads, some all, and some leave, against the rule
/// in the documentation.
#[test]
fn every_mass_change_of_a_small_fleet_is_held_by_the_rule() {
    let table = Table::new(&[
        ("both", "till web", ""),
        ("web", "web", ""),
        ("nothing", "", ""),
    ]);
    let guards = [
        Guard::default(),
        Guard {
            share_percent: 0,
            min_devices: 1,
        },
        Guard {
            share_percent: 100,
            min_devices: 0,
        },
    ];
    let (mut tried, mut held) = (0, 0);
    for stay in 0..9_usize {
        for lose in 0..9_usize {
            for emptied in 0..3_usize {
                for leave in 0..5_usize {
                    let found = table.losses(&[
                        ("both", stay, "both"),
                        ("both", lose, "web"),
                        ("both", emptied, "nothing"),
                        ("both", leave, "left"),
                    ]);
                    for guard in guards {
                        let of = stay + lose + emptied + leave;
                        let too_many = |lost: usize| {
                            lost > 0
                                && lost >= guard.min_devices as usize
                                && lost * 100 > of * guard.share_percent as usize
                        };
                        let expected = too_many(lose + emptied + leave)
                            || too_many(emptied + leave)
                            || emptied > 0
                            || leave > 0 && leave == of;
                        let reason = found.held(guard);
                        assert_eq!(
                            reason.is_some(),
                            expected,
                            "{stay} {lose} {emptied} {leave} {guard:?}: {reason:?}"
                        );
                        tried += 1;
                        held += usize::from(expected);
                    }
                }
            }
        }
    }
    println!("mass changes: {tried} tried, {held} held");
    assert!(held > 0 && held < tried);
}

//! A thousand devices at once: they join, follow commits, and lose nothing when the server is killed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use flotta_bench::follow::follow;

const DEVICES: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_devices_follow_commits_and_a_killed_server_loses_none() {
    let program = Path::new(env!("CARGO_BIN_EXE_flotta"));
    let followed = follow(program, DEVICES, |_| {}).await.unwrap();
    println!("{followed:#?}");
    assert_eq!((followed.joined, followed.release), (DEVICES, 6));
    // the server was killed in the middle
    assert!((1..DEVICES).contains(&followed.had_before_kill));
    assert_eq!(
        (followed.woken_by_one, followed.left_alone),
        (1, DEVICES - 1)
    );
    assert_eq!((followed.asked, followed.refused), (DEVICES, DEVICES));
}

//! A fleet that joins and follows commits while the server is killed: what is true of every device is checked.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use flotta_bundle::Digest;
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::device::{Device, Member, Seen};
use crate::site::{Fleet, Site, scratch};

/// Devices that join at a time.
const JOIN_AT_ONCE: usize = 64;

/// What was counted.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Devices that joined, each once.
    pub joined: usize,
    /// Commits that every device followed.
    pub commits: u64,
    /// Devices whose poll was answered for a commit that changes one device.
    pub woken_by_one: usize,
    /// Devices whose digest that commit left as it was.
    pub left_alone: usize,
    /// Devices that have what they should after the server was killed between two commits.
    pub after_kill: usize,
    /// Requests for another device's manifest, and how many were refused.
    pub asked: usize,
    /// Those that were refused.
    pub refused: usize,
    /// From a commit that changes every device, to the last that has it.
    pub commit_to_last: Duration,
    /// From the start of a server after SIGKILL, to the last device that has the newest release.
    pub restart_to_last: Duration,
}

/// A fleet that has joined `site`.
#[derive(Debug)]
pub struct Crowd {
    /// Its devices.
    pub devices: Vec<Device>,
    _folder: TempDir,
}

/// Has devices join, `at_once` at a time.
pub async fn join(site: &Site, count: usize, at_once: usize, folder: &Path) -> Result<Vec<Member>> {
    let members = stream::iter(0..count).map(async |number| {
        let file = site.join_file(Fleet::name(number)).await?;
        Member::join(number, &file, folder).await
    });
    members.buffer_unordered(at_once).try_collect().await
}

impl Crowd {
    /// Has a whole fleet join and connect, and waits until every device has the first release and holds a poll.
    pub async fn start(site: &mut Site, count: usize) -> Result<Self> {
        let folder = scratch()?;
        let mut members = join(site, count, JOIN_AT_ONCE, folder.path()).await?;
        members.sort_by_key(|member| member.number);
        let devices = members.into_iter().map(Member::follow);
        let crowd = Self {
            devices: devices.collect::<Result<_>>()?,
            _folder: folder,
        };
        crowd.all_have(1).await?;
        site.held(count).await?;
        Ok(crowd)
    }

    /// Waits until every device has this release; what each has then.
    pub async fn all_have(&self, release: u64) -> Result<Vec<Seen>> {
        let all = self.devices.iter().map(|device| device.has(release));
        let seen = future::try_join_all(all).await?;
        for device in &self.devices {
            let wrong = device.wrong();
            ensure!(
                wrong.is_empty(),
                "{}: {wrong:?}",
                Fleet::name(device.number)
            );
        }
        Ok(seen)
    }

    fn offers(&self) -> Vec<u64> {
        self.devices.iter().map(Device::offers).collect()
    }
}

/// When the last of them had it.
pub fn last(seen: &[Seen], since: Instant) -> Duration {
    let last = seen.iter().filter_map(|seen| seen.at).max();
    last.map_or(Duration::ZERO, |last| last.saturating_duration_since(since))
}

fn manifests(seen: &[Seen]) -> Vec<Option<Digest>> {
    seen.iter().map(|seen| seen.manifest).collect()
}

/// Runs the whole course with `count` devices against the program `flotta`. `say` hears how far it is.
pub async fn follow(program: &Path, count: usize, say: impl Fn(&str)) -> Result<Followed> {
    ensure!(count >= 2, "a fleet has two devices or more");
    let mut fleet = Fleet::new(count, 2);
    let mut site = Site::start(program, &fleet).await?;
    say(&format!("{count} devices join"));
    let crowd = Crowd::start(&mut site, count).await?;

    say("a commit changes every device");
    let before = crowd.offers();
    fleet.shared[0] += 1;
    let began = Instant::now();
    site.commit(&fleet).await?;
    let first = crowd.all_have(2).await?;
    let commit_to_last = last(&first, began);
    site.held(count).await?;
    let told = crowd.offers();
    let told_once = told
        .iter()
        .zip(&before)
        .all(|(now, before)| now - before == 1);
    ensure!(told_once, "a device was told of one release more than once");

    say("a commit changes one device");
    let chosen = count / 2;
    fleet.own[chosen] += 1;
    let before = site.wanted().await?;
    site.commit(&fleet).await?;
    crowd.devices[chosen].has(3).await?;
    site.held(count).await?;
    let after = site.wanted().await?;
    let left_alone = after
        .iter()
        .filter(|(name, manifest)| before.get(*name) == Some(*manifest));
    let left_alone = left_alone.count();

    say("a commit changes every device again");
    fleet.shared[1] += 1;
    site.commit(&fleet).await?;
    let second = crowd.all_have(4).await?;
    site.held(count).await?;
    // whoever was woken by the commit between was told of one release more
    let woken: Vec<_> = crowd
        .offers()
        .iter()
        .zip(&told)
        .map(|(now, before)| now - before - 1)
        .collect();
    let woken_by_one = woken.iter().filter(|more| **more > 0).count();
    ensure!(
        woken[chosen] == 1,
        "the device that changed was not told, or twice"
    );

    say("another device's manifest is asked for");
    let theirs = manifests(&second);
    let asks = crowd.devices.iter().map(async |device| {
        let other = theirs[(device.number + 1) % count];
        let Some(other) = other.filter(|other| Some(*other) != theirs[device.number]) else {
            anyhow::bail!("two devices share a manifest");
        };
        device.is_refused(other).await
    });
    let answers: Vec<bool> = future::try_join_all(asks).await?;

    let refused = answers.iter().filter(|refused| **refused).count();
    ensure!(
        refused == count,
        "{} devices read another's manifest",
        count - refused
    );
    ensure!(
        (woken_by_one, left_alone) == (1, count - 1),
        "{woken_by_one} were woken, {left_alone} left alone"
    );

    say("the server is killed between two commits");
    site.kill()?;
    fleet.shared[0] += 1;
    fleet.own[0] += 1;
    site.commit(&fleet).await?;
    let began = Instant::now();
    site.serve().await?;
    let third = crowd.all_have(5).await?;
    site.held(count).await?;

    Ok(Followed {
        joined: crowd.devices.len(),
        commits: 4,
        woken_by_one,
        left_alone,
        after_kill: third.iter().filter(|seen| seen.release >= 5).count(),
        asked: answers.len(),
        refused,
        commit_to_last,
        restart_to_last: last(&third, began),
    })
}

//! A fleet that joins and follows commits while the server is killed; every device is checked.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use flotta_bundle::Digest;
use flotta_bundle::wire::JoinFile;
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, future, stream};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::device::{Device, Member, Seen};
use crate::site::{Fleet, Site, scratch};

/// Devices that join in parallel.
const JOIN_AT_ONCE: usize = 64;

/// The results.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Devices that joined, by the server's own list.
    pub joined: usize,
    /// Devices that had joined when the server was killed during the joins.
    pub joined_before_kill: usize,
    /// The newest release that every device has.
    pub release: u64,
    /// Devices that had a release when the server was killed while it was fetched.
    pub had_before_kill: usize,
    /// Devices whose poll was answered for a commit that changes one device.
    pub woken_by_one: usize,
    /// Devices whose digest that commit did not change.
    pub left_alone: usize,
    /// Requests for another device's manifest.
    pub asked: usize,
    /// How many of these were refused.
    pub refused: usize,
    /// The time from a commit that changes every device until the last device has it.
    pub commit_to_last: Duration,
    /// The time from the restart of a server that was killed between two commits until the last device has the newest release.
    pub restart_to_last: Duration,
}

/// A fleet that has joined `site`.
#[derive(Debug)]
pub struct Crowd {
    /// Its devices.
    pub devices: Vec<Device>,
    _folder: TempDir,
}

/// Join files for so many devices.
pub async fn join_files(site: &Site, count: usize) -> Result<Vec<JoinFile>> {
    let files = stream::iter(0..count).map(|number| site.join_file(Fleet::name(number)));
    files.buffered(JOIN_AT_ONCE).try_collect().await
}

/// Joins devices with these files, `at_once` in parallel, and yields each as soon as it has joined.
pub fn join<'a>(
    files: &'a [JoinFile],
    at_once: usize,
    folder: &'a Path,
) -> impl Stream<Item = Result<Member>> + 'a {
    let members = files.iter().enumerate();
    let members = members.map(move |(number, file)| Member::join(number, file, folder));
    stream::iter(members).buffer_unordered(at_once)
}

impl Crowd {
    /// Joins and connects a whole fleet, and waits until every device has the first release and a held poll.
    pub async fn start(site: &mut Site, count: usize) -> Result<Self> {
        let folder = scratch()?;
        let files = join_files(site, count).await?;
        let members = join(&files, JOIN_AT_ONCE, folder.path());
        let members = members.try_collect().await?;
        Self::connect(site, members, folder).await
    }

    /// The same, with the server killed when half of the devices have joined. Returns how many had.
    async fn start_through_kill(site: &mut Site, count: usize) -> Result<(Self, usize)> {
        let folder = scratch()?;
        let files = join_files(site, count).await?;
        let mut joins = join(&files, JOIN_AT_ONCE, folder.path()).boxed_local();
        let mut members = Vec::new();
        while members.len() < count / 2 {
            members.extend(joins.try_next().await?);
        }
        site.kill()?;
        let before = members.len();
        // joins that are under way continue without a server
        let again = async { site.serve().await };
        let (rest, again) = future::join(joins.try_collect::<Vec<_>>(), again).await;
        again?;
        members.extend(rest?);
        Ok((Self::connect(site, members, folder).await?, before))
    }

    async fn connect(site: &mut Site, mut members: Vec<Member>, folder: TempDir) -> Result<Self> {
        members.sort_by_key(|member| member.number);
        let count = members.len();
        let devices = members.into_iter().map(Member::follow);
        let crowd = Self {
            devices: devices.collect::<Result<_>>()?,
            _folder: folder,
        };
        crowd.all_have(1).await?;
        site.held(count).await?;
        Ok(crowd)
    }

    /// Waits until one device has this release.
    async fn one_has(&self, release: u64) -> Result<()> {
        let each: FuturesUnordered<_> = self
            .devices
            .iter()
            .map(|device| device.has(release))
            .collect();
        std::pin::pin!(each).try_next().await?;
        Ok(())
    }

    /// Waits until every device has this release, and returns what each has.
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

    /// Kills the server between two commits, and while a release is fetched. Returns the time from the first restart to the last
    /// device that has the release, how many had the next one when the server was killed again, and the release that all have
    /// at the end.
    async fn through_kills(
        &self,
        site: &mut Site,
        fleet: &mut Fleet,
        say: &impl Fn(&str),
    ) -> Result<(Duration, usize, u64)> {
        say("the server is killed between two commits");
        site.kill()?;
        fleet.shared[0] += 1;
        fleet.own[0] += 1;
        site.commit(fleet).await?;
        let began = Instant::now();
        site.serve().await?;
        let restart_to_last = last(&self.all_have(5).await?, began);
        site.held(self.devices.len()).await?;

        say("the server is killed while they fetch");
        fleet.shared[1] += 1;
        site.commit(fleet).await?;
        self.one_has(6).await?;
        site.kill()?;
        let had = self.devices.iter();
        let had = had
            .filter(|device| device.seen.borrow().release >= 6)
            .count();
        site.serve().await?;
        let seen = self.all_have(6).await?;
        site.held(self.devices.len()).await?;
        let release = seen.iter().map(|seen| seen.release).min();
        Ok((restart_to_last, had, release.unwrap_or_default()))
    }

    fn offers(&self) -> Vec<u64> {
        self.devices.iter().map(Device::offers).collect()
    }
}

/// The time until the last of them had it.
pub fn last(seen: &[Seen], since: Instant) -> Duration {
    let last = seen.iter().filter_map(|seen| seen.at).max();
    last.map_or(Duration::ZERO, |last| last.saturating_duration_since(since))
}

fn manifests(seen: &[Seen]) -> Vec<Option<Digest>> {
    seen.iter().map(|seen| seen.manifest).collect()
}

/// Runs the whole test with `count` devices against the program `flotta`. `say` is called with the progress.
pub async fn follow(program: &Path, count: usize, say: impl Fn(&str)) -> Result<Followed> {
    ensure!(count >= 2, "a fleet has two devices or more");
    let mut fleet = Fleet::new(count, 2);
    let mut site = Site::start(program, &fleet).await?;
    say(&format!("{count} devices join"));
    let (crowd, joined_before_kill) = Crowd::start_through_kill(&mut site, count).await?;
    let joined = site.joined().await?;

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
    // a device that was woken by the commit in between got one more offer
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

    let killed = crowd.through_kills(&mut site, &mut fleet, &say).await?;
    let (restart_to_last, had_before_kill, release) = killed;

    Ok(Followed {
        joined,
        joined_before_kill,
        release,
        had_before_kill,
        woken_by_one,
        left_alone,
        asked: answers.len(),
        refused,
        commit_to_last,
        restart_to_last,
    })
}

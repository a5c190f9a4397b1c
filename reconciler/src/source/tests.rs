use std::path::Path;

use git2::{Repository, Signature};

use super::remote::{Tip, parse_tip};
use super::*;

fn commit(directory: &Path, file: &str, content: &str) -> String {
    let repository = Repository::open(directory).unwrap_or_else(|_| {
        let mut options = git2::RepositoryInitOptions::new();
        options.initial_head("main");
        Repository::init_opts(directory, &options).unwrap()
    });
    let path = directory.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, content).unwrap();
    let mut index = repository.index().unwrap();
    index.add_path(Path::new(file)).unwrap();
    index.write().unwrap();
    let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
    let parent = repository
        .head()
        .ok()
        .map(|head| head.peel_to_commit().unwrap());
    let who = Signature::now("test", "test@example.com").unwrap();
    let parents: Vec<_> = parent.iter().collect();
    repository
        .commit(
            Some("HEAD"),
            &who,
            &who,
            &format!("change {file}\n\nmore"),
            &tree,
            &parents,
        )
        .unwrap()
        .to_string()
}

fn paths(checkout: &Checkout) -> Vec<&str> {
    checkout
        .tree
        .files
        .iter()
        .map(|file| file.path.as_str())
        .collect()
}

#[test]
fn urls_are_told_from_paths() {
    for url in [
        "https://git.example/fleet.git",
        "ssh://git@git.example:2222/fleet.git",
        "git@git.example:team/fleet.git",
        "file:///srv/fleet.git",
    ] {
        assert!(Url::parse(url).is_some(), "{url}");
    }
    for path in [
        "fleet",
        "./fleet",
        "/srv/fleet",
        "C:fleet",
        "https://",
        "ext::sh -c id",
        "ext://x",
        "-u@host:x",
        "--upload-pack=x@y:z",
        "https://host/a b",
    ] {
        assert!(Url::parse(path).is_none(), "{path}");
    }
}

#[test]
fn credentials_are_not_shown() {
    for (url, shown) in [
        (
            "https://ada:s3cret@git.example/f.git",
            "https://git.example/f.git",
        ),
        (
            "https://ghp_token@git.example/f.git?a=b",
            "https://git.example/f.git",
        ),
        ("ssh://git@git.example/f.git", "ssh://git@git.example/f.git"),
        (
            "ssh://git:pw12345@git.example/f.git",
            "ssh://git@git.example/f.git",
        ),
        ("git@git.example:f.git", "git@git.example:f.git"),
    ] {
        let url = Url::parse(url).unwrap();
        assert_eq!(url.redacted(), shown);
        assert_eq!(format!("{url} {url:?}"), format!("{shown} {shown}"));
    }
    let url = Url::parse("https://ada:s3cret@git.example/f.git").unwrap();
    let said =
        "fatal: unable to access 'https://ada:s3cret@git.example/f.git/': password s3cret refused";
    assert_eq!(
        url.scrub(said),
        "fatal: unable to access 'https://git.example/f.git/': password *** refused"
    );
}

#[test]
fn a_tip_is_read_from_ls_remote() {
    let answer = "ref: refs/heads/main\tHEAD\n4f2c91a0\tHEAD\n4f2c91a0\trefs/remotes/origin/HEAD\n";
    let tip = |commit: &str, branch: &str| Tip {
        commit: commit.to_owned(),
        branch: Some(branch.to_owned()),
    };
    assert_eq!(parse_tip(answer, "HEAD"), Some(tip("4f2c91a0", "main")));
    assert_eq!(
        parse_tip("9e1d3c00\trefs/heads/next\n", "refs/heads/next"),
        Some(tip("9e1d3c00", "next"))
    );
    assert_eq!(parse_tip("", "HEAD"), None);
}

#[test]
fn a_selection_cannot_leave_the_repository() {
    for (branch, path) in [
        (Some("a..b"), None),
        (Some("--x "), None),
        (None, Some("../x")),
        (None, Some("/x")),
    ] {
        let selection = Selection {
            branch: branch.map(str::to_owned),
            path: path.map(str::to_owned),
        };
        assert!(matches!(
            Source::parse("/", selection, Path::new("/")),
            Err(SourceError::Selection(..))
        ));
    }
}

#[tokio::test]
async fn a_directory_is_read_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.yaml"), "a: 1").unwrap();
    let text = directory.path().to_str().unwrap();
    let mut source = Source::parse(text, Selection::default(), directory.path()).unwrap();

    let first = source.poll().await.unwrap().unwrap();
    assert_eq!(paths(&first), ["a.yaml"]);
    assert!(first.revision.commit.starts_with("sha256:"));
    assert!(source.poll().await.unwrap().is_none());

    std::fs::write(directory.path().join("a.yaml"), "a: 2").unwrap();
    let second = source.poll().await.unwrap().unwrap();
    assert_ne!(first.revision.commit, second.revision.commit);
}

#[tokio::test]
async fn a_repository_is_read_at_its_commit() {
    let directory = tempfile::tempdir().unwrap();
    let first = commit(directory.path(), "fleet/a.yaml", "a: 1");
    std::fs::write(directory.path().join("fleet/a.yaml"), "not committed").unwrap();
    let text = directory.path().to_str().unwrap();
    let selection = Selection {
        path: Some("fleet".to_owned()),
        ..Selection::default()
    };
    let mut source = Source::parse(text, selection, directory.path()).unwrap();

    let checkout = source.poll().await.unwrap().unwrap();
    assert_eq!(checkout.revision.commit, first);
    assert_eq!(checkout.revision.subject, "change fleet/a.yaml");
    assert_eq!(checkout.label(), format!("main@{}", &first[..7]));
    assert_eq!(checkout.tree.files[0].content, b"a: 1");
    assert!(source.poll().await.unwrap().is_none());

    source.forget();
    assert!(source.poll().await.unwrap().is_some());
}

#[tokio::test]
async fn a_url_is_mirrored() {
    let data = tempfile::tempdir().unwrap();
    let origin = tempfile::tempdir().unwrap();
    let first = commit(origin.path(), "a.yaml", "a: 1");
    let url = format!("file://{}", origin.path().display());
    let mut source = Source::parse(&url, Selection::default(), data.path()).unwrap();

    let checkout = source.poll().await.unwrap().unwrap();
    assert_eq!(checkout.revision.commit, first);
    assert_eq!(checkout.revision.source, url);
    assert_eq!(checkout.branch.as_deref(), Some("main"));
    assert!(source.poll().await.unwrap().is_none());

    // as after a power cut in the middle of a fetch
    for lock in ["shallow.lock", "config.lock", "refs/flotta/head.lock"] {
        std::fs::write(data.path().join("source.git").join(lock), "").unwrap();
    }
    let second = commit(origin.path(), "b.yaml", "b: 1");
    let checkout = source.poll().await.unwrap().unwrap();
    assert_eq!(checkout.revision.commit, second);
    assert_eq!(paths(&checkout), ["a.yaml", "b.yaml"]);
}

#[tokio::test]
async fn what_git_says_is_in_the_error() {
    let data = tempfile::tempdir().unwrap();
    let url = format!("file://{}/none.git", data.path().display());
    let mut source = Source::parse(&url, Selection::default(), data.path()).unwrap();
    let error = source.poll().await.unwrap_err().to_string();
    assert!(error.starts_with("git ls-remote: "), "{error}");
    assert!(error.contains("none.git"), "{error}");
}

#[tokio::test]
async fn a_missing_branch_is_named() {
    let directory = tempfile::tempdir().unwrap();
    commit(directory.path(), "a.yaml", "a: 1");
    for text in [
        directory.path().display().to_string(),
        format!("file://{}", directory.path().display()),
    ] {
        let data = tempfile::tempdir().unwrap();
        let selection = Selection {
            branch: Some("next".to_owned()),
            path: None,
        };
        let mut source = Source::parse(&text, selection, data.path()).unwrap();
        let error = source.poll().await.unwrap_err().to_string();
        assert!(error.ends_with("has no branch `next`"), "{error}");
    }
}

/// Sets the branch to a commit, as a forced push does.
fn force(directory: &Path, commit: &str) {
    let repository = Repository::open(directory).unwrap();
    let object = repository.revparse_single(commit).unwrap();
    repository
        .reset(&object, git2::ResetType::Hard, None)
        .unwrap();
}

#[tokio::test]
async fn a_mirror_knows_whether_the_branch_goes_on_from_where_it_was() {
    let data = tempfile::tempdir().unwrap();
    let origin = tempfile::tempdir().unwrap();
    let first = commit(origin.path(), "a.yaml", "a: 1");
    let second = commit(origin.path(), "a.yaml", "a: 2");
    let url = format!("file://{}", origin.path().display());
    let mut source = Source::parse(&url, Selection::default(), data.path()).unwrap();
    let ancestry = async |source: &mut Source| {
        let checkout = source.poll().await.unwrap().unwrap();
        checkout.ancestry
    };
    assert_eq!(
        ancestry(&mut source).await,
        None,
        "nothing was there before"
    );
    let third = commit(origin.path(), "a.yaml", "a: 3");
    commit(origin.path(), "a.yaml", "a: 4");
    assert_eq!(
        ancestry(&mut source).await,
        Some((second.clone(), Ancestry::Descendant))
    );
    force(origin.path(), &third);
    let (_, back) = ancestry(&mut source).await.unwrap();
    assert_eq!(back, Ancestry::Ancestor);
    // a reset to a commit that was never fetched, and a new history from there
    force(origin.path(), &first);
    assert_ne!(ancestry(&mut source).await.unwrap().1, Ancestry::Descendant);
    commit(origin.path(), "b.yaml", "b: 1");
    assert_eq!(
        ancestry(&mut source).await,
        Some((first, Ancestry::Descendant))
    );
    let other = tempfile::tempdir().unwrap();
    commit(other.path(), "c.yaml", "c: 1");
    std::fs::remove_dir_all(origin.path().join(".git")).unwrap();
    std::fs::rename(other.path().join(".git"), origin.path().join(".git")).unwrap();
    assert_eq!(ancestry(&mut source).await.unwrap().1, Ancestry::Unrelated);
}

#[tokio::test]
async fn a_trailer_counts_in_the_commit_and_in_what_a_merge_brings() {
    let directory = tempfile::tempdir().unwrap();
    let base = commit(directory.path(), "a.yaml", "a: 1");
    let repository = Repository::open(directory.path()).unwrap();
    let who = git2::Signature::now("test", "test@example.com").unwrap();
    let find = |id: &str| {
        repository
            .find_commit(git2::Oid::from_str(id).unwrap())
            .unwrap()
    };
    let make = |message: &str, parents: &[&str]| {
        let parents: Vec<_> = parents.iter().map(|id| find(id)).collect();
        let parents: Vec<_> = parents.iter().collect();
        let tree = parents[0].tree().unwrap();
        let id = repository.commit(None, &who, &who, message, &tree, &parents);
        id.unwrap().to_string()
    };
    let removes = make("no tills\n\nFlotta-Allow-Removal: true\n", &[&base]);
    let after = make("next", &[&removes]);
    let main = make("meanwhile", &[&base]);
    let merge = make("Merge pull request 7", &[&main, &removes]);
    for (commit, allows) in [
        (&removes, true),
        (&merge, true),
        // an earlier permission allows nothing later
        (&after, false),
        (&main, false),
        (
            &make("no tills\n\nFlotta-Allow-Removal: no\n", &[&base]),
            false,
        ),
        (&make("Flotta-Allow-Removal: true", &[&base]), false),
        (
            &make(
                "x\n\nflotta-allow-removal: true\nSigned-off-by: a <a@b>\n",
                &[&base],
            ),
            true,
        ),
    ] {
        assert_eq!(
            history::allows_removal(&repository, commit),
            allows,
            "{commit}"
        );
    }
}

/// A commit on top of others that changes nothing.
fn make(repository: &Repository, message: &str, parents: &[&str]) -> String {
    let find = |id: &&str| repository.find_commit(git2::Oid::from_str(id).unwrap());
    let parents: Vec<_> = parents.iter().map(|id| find(id).unwrap()).collect();
    let parents: Vec<_> = parents.iter().collect();
    let tree = parents[0].tree().unwrap();
    let who = Signature::now("test", "test@example.com").unwrap();
    let id = repository.commit(None, &who, &who, message, &tree, &parents);
    id.unwrap().to_string()
}

const MEANT: &str = "no tills\n\nFlotta-Allow-Removal: true\n";

#[tokio::test]
async fn a_merge_of_an_old_branch_does_not_bring_old_permissions() {
    let (data, origin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let base = commit(origin.path(), "a.yaml", "a: 1");
    let repository = Repository::open(origin.path()).unwrap();
    let old = make(&repository, MEANT, &[&base]);
    let main = make(&repository, "meanwhile", &[&old]);
    let branch = make(&repository, "a feature", &[&old]);
    let merge = make(&repository, "Merge pull request 8", &[&main, &branch]);
    force(origin.path(), &main);
    let url = format!("file://{}", origin.path().display());
    let mut source = Source::parse(&url, Selection::default(), data.path()).unwrap();
    assert!(!source.poll().await.unwrap().unwrap().allows_removal);
    force(origin.path(), &merge);
    let checkout = source.poll().await.unwrap().unwrap();
    assert_eq!(checkout.revision.commit, merge);
    assert!(!checkout.allows_removal);

    // if the history ends before it reaches the branch, it is not known what the merge brings
    let other = make(&repository, "another feature", &[&branch]);
    let long = make(&repository, "Merge pull request 9", &[&base, &other]);
    for (tip, depth, allows) in [
        (&merge, "--depth=2", false),
        (&merge, "--depth=3", false),
        (&long, "--depth=4", false),
        // this merge brings the old commit in
        (&long, "--depth=5", true),
    ] {
        force(origin.path(), tip);
        let clone = tempfile::tempdir().unwrap();
        let cloned = std::process::Command::new("git")
            .args(["clone", "--quiet", "--bare", depth, &url])
            .arg(clone.path())
            .status();
        assert!(cloned.unwrap().success());
        let shallow = Repository::open(clone.path()).unwrap();
        let found = history::allows_removal(&shallow, tip);
        assert_eq!(found, allows, "{tip} {depth}");
    }
}

#[tokio::test]
async fn what_came_before_is_fetched_again_and_what_is_missing_has_no_ancestry() {
    let (data, origin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = commit(origin.path(), "a.yaml", "a: 1");
    let second = commit(origin.path(), "a.yaml", "a: 2");
    let url = format!("file://{}", origin.path().display());
    for before in [
        // from a mirror that was removed
        first.clone(),
        // the source was a folder
        flotta_bundle::Digest::of(b"folder").to_string(),
    ] {
        let mut source = Source::parse(&url, Selection::default(), data.path()).unwrap();
        source.follows(&before);
        let checkout = source.poll().await.unwrap().unwrap();
        assert_eq!(checkout.revision.commit, second);
        assert_eq!(checkout.ancestry, None, "{before}");
    }
    let source = Source::parse(&url, Selection::default(), data.path()).unwrap();
    let recalled = source.recall(&first).await.unwrap();
    assert_eq!(recalled.tree.files[0].content, b"a: 1");
    assert!(source.recall(&"0".repeat(40)).await.is_none());
    assert!(source.recall("--upload-pack=x").await.is_none());
}

/// The findings about files in a folder that do not belong to a fleet.
fn found(directory: &Path) -> Vec<String> {
    let tree = Tree::read_dir(directory).unwrap();
    said(&Reader::default().read(&tree))
}

fn said(input: &Input) -> Vec<String> {
    use flotta_renderer::{Options, Severity, render};
    let rendered = render(input, &[], &Options::default());
    let line = |finding: &flotta_renderer::Finding| {
        let word = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        format!("{word} {}: {}", finding.place, finding.message)
    };
    rendered.findings.iter().map(line).collect()
}

#[test]
fn what_else_a_repository_holds_is_named_and_never_refused() {
    let directory = tempfile::tempdir().unwrap();
    let device = "apiVersion: management.project-flotta.io/v1alpha1\nkind: EdgeDevice\nmetadata: {name: box-1}\n";
    let large = "a: b\n".repeat((4 << 20) / 5 + 1);
    for (path, content) in [
        ("fleet/box-1.yaml", device),
        ("fleet/kustomization.yaml", "resources: [box-1.yaml]\n"),
        (
            "app/Chart.yaml",
            "apiVersion: v2\nname: app\nversion: 1.0.0\n",
        ),
        ("app/values.yaml", "image: {tag: 1}\n"),
        ("app/values-shop.yaml", "image: {tag: 2}\n"),
        (
            "app/templates/a.yaml",
            "{{ if .Values.a }}\nkind: EdgeDevice\n{{ end }}\n",
        ),
        (
            "app/charts/sub/Chart.yaml",
            "apiVersion: v2\nname: sub\nversion: 1.0.0\n",
        ),
        ("compose.yml", "services: {web: {image: nginx}}\n"),
        ("play.yaml", "- hosts: all\n  vars: {a: {{ b }}}\n"),
        ("large.yaml", &large),
        ("sub/.git", "gitdir: ../.git/modules/sub\n"),
        ("sub/x.yaml", "kind: EdgeDevice\n"),
    ] {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    insta::assert_snapshot!(found(directory.path()).join("\n"));

    // the content behind the pointer is not part of the commit
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    std::fs::write(directory.path().join("large.yaml"), pointer).unwrap();
    let found = found(directory.path());
    let of_pointer =
        "error large.yaml: a Git LFS pointer: the file itself is not in the repository";
    assert!(found.iter().any(|line| line == of_pointer), "{found:?}");
}

#[test]
fn a_file_of_git_is_read_as_far_as_it_is_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    // one byte more than is read from Git, and one byte more than a file of a fleet may have
    for (file, size) in [("huge.yaml", (64 << 20) + 1), ("large.yaml", (4 << 20) + 1)] {
        commit(directory.path(), file, &"#".repeat(size));
    }
    let repository = Repository::open(directory.path()).unwrap();
    let (tree, _) = Tree::at_revision(&repository, "HEAD", None).unwrap();
    assert_eq!(tree.skipped, [("huge.yaml".to_owned(), Skipped::TooLarge)]);
    let ignored =
        "it is not part of the fleet, and cannot be read as YAML: a file larger than 4 MiB";
    let said = said(&Reader::default().read(&tree));
    assert_eq!(
        said[1..],
        [
            "warning huge.yaml: a file larger than 64 MiB is not read".to_owned(),
            format!("warning large.yaml: {ignored}"),
        ]
    );
}

#[test]
fn a_source_without_objects_is_not_clean() {
    let directory = tempfile::tempdir().unwrap();
    let empty = ["warning : the source holds no object of Flotta's"];
    assert_eq!(found(directory.path()), empty);
}

#[test]
fn a_submodule_of_a_commit_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let commit = commit(directory.path(), "a.yaml", "kind: x");
    let repository = Repository::open(directory.path()).unwrap();
    let head = repository.head().unwrap().peel_to_commit().unwrap();
    let mut tree = repository.treebuilder(Some(&head.tree().unwrap())).unwrap();
    tree.insert("sub", git2::Oid::from_str(&commit).unwrap(), 0o160_000)
        .unwrap();
    let tree = repository.find_tree(tree.write().unwrap()).unwrap();
    let who = Signature::now("test", "test@example.com").unwrap();
    repository
        .commit(Some("HEAD"), &who, &who, "sub", &tree, &[&head])
        .unwrap();
    let (tree, _) = Tree::at_revision(&repository, "HEAD", None).unwrap();
    assert_eq!(tree.skipped, [("sub".to_owned(), Skipped::Submodule)]);
}

use super::*;

fn config(source: &Path, data: &Path) -> Config {
    Config {
        source: source.display().to_string(),
        selection: Selection::default(),
        data: data.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        fleet: None,
        names: vec!["localhost".to_owned()],
        admin: Some(data.join("admin.sock")),
        access: admin::Access::User,
        hooks: None,
        interval: Duration::from_secs(3600),
        require_digests: false,
    }
}

#[tokio::test]
async fn a_second_server_touches_no_key_of_the_first() {
    let (source, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Store::open(data.path()).unwrap();
    let config = config(source.path(), data.path());
    let error = Server::open(config.clone()).await.unwrap_err();
    assert!(
        matches!(error, ServeError::Store(StoreError::InUse(_))),
        "{error}"
    );
    assert!(!data.path().join("keys").exists());
    drop(first);
    let server = Server::open(config).await.unwrap();
    assert!(server.about().first_start);
}

#[tokio::test]
async fn what_ended_a_server_is_told_even_if_others_do_not_end() {
    let mut tasks = JoinSet::new();
    tasks.spawn(std::future::pending());
    let error = || ServeError::Ended("the admin API", std::io::ErrorKind::Other.into());
    assert!(drain(tasks, Err(error()), Duration::ZERO).await.is_err());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { Err(error()) });
    assert!(drain(tasks, Ok(()), GRACE).await.is_err());
}

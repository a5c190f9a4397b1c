use flotta_bundle::crypto::SigningKey;

use super::*;

fn stored() -> Stored {
    let (key, _) = SigningKey::generate().unwrap();
    Stored {
        envelope: Envelope::sign(flotta_bundle::release::PAYLOAD_TYPE, b"{}", &[&key]),
        leaves: vec!["{\"device\":\"default/a\"}".to_owned()],
    }
}

#[tokio::test]
async fn what_is_written_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let depot = Depot::local(&directory.path().join("depot")).unwrap();
    assert_eq!(depot.head().await.unwrap(), None);
    assert_eq!(depot.release(1).await.unwrap(), None);

    let release = stored();
    let blobs = BTreeMap::from([(Digest::of(b"one"), b"one".to_vec())]);
    depot.put_blobs(&blobs).await.unwrap();
    depot.put_release(1, &release).await.unwrap();
    depot.put_head(1).await.unwrap();

    // as another process would find it
    let depot = Depot::local(&directory.path().join("depot")).unwrap();
    assert_eq!(depot.head().await.unwrap().unwrap().sequence, 1);
    assert_eq!(depot.release(1).await.unwrap(), Some(release));
    let blob = depot.blob(&Digest::of(b"one")).await.unwrap();
    assert_eq!(blob.as_deref(), Some(b"one".as_slice()));
    assert_eq!(depot.blob(&Digest::of(b"two")).await.unwrap(), None);
}

#[tokio::test]
async fn a_damaged_blob_is_not_given_and_a_cut_one_is_written_again() {
    let directory = tempfile::tempdir().unwrap();
    let depot = Depot::local(directory.path()).unwrap();
    let digest = Digest::of(b"content");
    let blobs = BTreeMap::from([(digest, b"content".to_vec())]);
    depot.put_blobs(&blobs).await.unwrap();
    let file = directory.path().join(blob_path(&digest).as_ref());

    std::fs::write(&file, b"CONTENT").unwrap();
    assert!(matches!(
        depot.blob(&digest).await,
        Err(DepotError::Damaged { .. })
    ));
    std::fs::write(&file, b"cont").unwrap();
    depot.put_blobs(&blobs).await.unwrap();
    assert!(depot.blob(&digest).await.unwrap().is_some());
}

#[tokio::test]
async fn a_layout_of_the_future_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let depot = Depot::local(directory.path()).unwrap();
    std::fs::write(
        directory.path().join("head.json"),
        r#"{"schema":2,"sequence":1}"#,
    )
    .unwrap();
    let error = depot.head().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "depot: head.json cannot be read: layout 2, this program knows 1"
    );
}

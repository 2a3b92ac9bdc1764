//! Who gets a connection at all, and how certificates are replaced.

use std::{path::Path, sync::Arc, time::Duration};

use lockstep_chassis::{Channels, Drain, TlsDial, TlsError, TlsIdentity, status};
use lockstep_model::{Identity, Reason};
use lockstep_proto::filesync::v1::{WatchReplicasRequest, file_service_client::FileServiceClient};
use rustls::{ClientConfig, RootCertStore, pki_types::pem::PemObject as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::common::{DOMAIN, Files, People, Pki, SOON, Served, get, operator, path, server};

async fn assert_refused(served: &Served, channels: &Channels, part: &str) {
    let before = served.reached();
    let failure = get(&mut served.files(channels), path("x")).await.expect_err("refused");
    assert_eq!(failure.reason, Reason::PeerUnreachable, "{failure}");
    assert!(failure.message.contains(part), "{failure}");
    assert_eq!(served.reached(), before);
}

/// R67, R69: a foreign CA and another trust domain fail the handshake on the server's side.
#[tokio::test]
async fn foreign_certificates_fail_the_handshake() {
    let (pki, foreign) = (Pki::new(), Pki::new());
    let served = Served::start(pki.tls(&server("s1", "filesync")), People::usual()).await;

    // The foreign client believes our CA, so that it is the server who refuses.
    let files = foreign.files(&operator("local"));
    std::fs::write(&files.ca, pki.ca.cert_pem()).unwrap();
    assert_refused(&served, &Channels::new(TlsDial::new(files.load())), "").await;

    // The same CA, but a name of another trust domain.
    let directory = tempfile::tempdir().unwrap();
    let other =
        lockstep_chassis::pki::DevelopmentCa::open_or_create(directory.path(), "lockstep.other").unwrap();
    let both = format!("{}{}", pki.ca.cert_pem(), other.cert_pem());
    let server_files = pki.files(&server("s2", "filesync"));
    std::fs::write(&server_files.ca, both).unwrap();
    let believing = Served::start(server_files.load(), People::usual()).await;
    let files = Files {
        cert: directory.path().join("c.pem"),
        key: directory.path().join("c.key"),
        ca: directory.path().join("believed.pem"),
    };
    other.issue(&operator("local"), &[]).unwrap().write(&files.cert, &files.key).unwrap();
    std::fs::write(&files.ca, pki.ca.cert_pem()).unwrap();
    assert!(matches!(
        TlsIdentity::load(&files.cert, &files.key, &files.ca, DOMAIN),
        Err(TlsError::Invalid { cause, .. }) if cause.contains("no identity of the trust domain")
    ));
    let tls = TlsIdentity::load(&files.cert, &files.key, &files.ca, "lockstep.other").unwrap();
    assert_refused(&believing, &Channels::new(TlsDial::new(tls)), "").await;

    served.end().await;
    believing.end().await;
}

/// R67, R69: without a certificate nothing is answered, not even to bytes that were sent ahead.
#[tokio::test]
async fn a_client_without_a_certificate_gets_nothing() {
    let pki = Pki::new();
    let served = Served::start(pki.tls(&server("s1", "filesync")), People::usual()).await;
    let mut roots = RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_slice(pki.ca.cert_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", served.port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let outcome = async {
        let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.map(|_| answer)
    };
    let answer = tokio::time::timeout(SOON, outcome).await.expect("an end").unwrap_or_default();
    assert!(answer.is_empty(), "{answer:?}");

    // Plain HTTP/2 gets nothing either.
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", served.port)).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.expect("an end");
    assert!(!answer.windows(4).any(|bytes| bytes == [0, 0, 0, 4]), "no settings frame: {answer:?}");
    assert_eq!(served.reached(), 0);
    served.end().await;
}

/// R67: a client does not talk to a server that is not the one it means, whatever name it dialled.
#[tokio::test]
async fn a_server_with_another_identity_is_not_talked_to() {
    let (pki, foreign) = (Pki::new(), Pki::new());
    let served = Served::start(pki.tls(&server("s1", "filesync")), People::usual()).await;
    let channels = pki.channels(&operator("local"));
    let channel = channels.to(&served.uri, server("s2", "filesync"), lockstep_chassis::Lane::Control);
    let failure = get(&mut FileServiceClient::new(channel), path("x")).await.expect_err("another server");
    assert!(
        failure.message.contains("belongs to server/s1/filesync, not to server/s2/filesync"),
        "{failure}"
    );
    let anyone = channels.to_anyone(&served.uri, lockstep_chassis::Lane::Control);
    assert_eq!(get(&mut FileServiceClient::new(anyone), path("x")).await.as_deref(), Ok("x"));

    // A CA that the client does not believe.
    let files = pki.files(&operator("local"));
    std::fs::write(&files.ca, foreign.ca.cert_pem()).unwrap();
    assert_refused(&served, &Channels::new(TlsDial::new(files.load())), "certificate").await;
    served.end().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_say_why() {
    let pki = Pki::new();
    let files = pki.files(&operator("local"));
    let other = pki.files(&operator("other"));
    let load = |cert, key, ca| TlsIdentity::load(cert, key, ca, DOMAIN).map(|_| ()).expect_err("unusable");
    let missing = files.cert.with_extension("missing");
    assert!(
        matches!(load(&missing, &files.key, &files.ca), TlsError::Unreadable { path, .. } if path == missing)
    );
    assert!(
        matches!(load(&files.cert, &other.key, &files.ca), TlsError::Invalid { path, .. } if path == other.key)
    );
    assert!(matches!(load(&files.key, &files.key, &files.ca), TlsError::Invalid { .. }));
    assert!(
        matches!(load(&files.cert, &files.key, &files.key), TlsError::Invalid { path, .. } if path == files.key)
    );
    let mut readable = std::fs::metadata(&files.key).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut readable, 0o644);
    std::fs::set_permissions(&files.key, readable).unwrap();
    assert!(
        matches!(load(&files.cert, &files.key, &files.ca), TlsError::KeyExposed { path } if path == files.key)
    );
}

/// Waits until the log says it.
async fn until_said(log: &Path, text: &str) {
    let said = async {
        while !std::fs::read_to_string(log).unwrap().contains(text) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, said).await.unwrap_or_else(|_| panic!("the log never says: {text}"));
}

/// R68: replaced certificates are taken up without a restart, a broken key leaves the old ones in place, and a stream
/// that runs meanwhile does not notice.
#[tokio::test]
async fn certificates_are_replaced_without_a_restart() {
    // Everything here runs on the thread of this test.
    let log = tempfile::NamedTempFile::new().unwrap();
    let writer = Arc::new(log.reopen().unwrap());
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let (old, new) = (Pki::new(), Pki::new());
    let identity = server("s1", "filesync");
    let files = old.files(&identity);
    let tls = files.load();
    let watch = Drain::new();
    tls.watch(&watch);
    let served = Served::start(tls, People::usual()).await;
    let old_client = old.channels(&operator("local"));
    let new_client = || new.channels(&operator("local"));
    let mut stream = served
        .replicas(&old_client)
        .watch_replicas(WatchReplicasRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(get(&mut served.files(&old_client), path("x")).await.as_deref(), Ok("x"));
    assert!(get(&mut served.files(&new_client()), path("x")).await.is_err());

    // A key that is no key, together with a certificate of the new CA: refused, and the old pair stays.
    std::fs::write(&files.key, "no key").unwrap();
    std::fs::write(&files.ca, new.ca.cert_pem()).unwrap();
    until_said(log.path(), &format!("{} cannot be used", files.key.display())).await;
    assert_eq!(
        get(&mut served.files(&old.channels(&operator("local"))), path("x")).await.as_deref(),
        Ok("x")
    );

    // A certificate of somebody else is no replacement.
    new.issue(&server("s2", "filesync"), &files);
    until_said(log.path(), &format!("{} belongs to", files.cert.display())).await;
    assert_eq!(
        get(&mut served.files(&old.channels(&operator("local"))), path("x")).await.as_deref(),
        Ok("x")
    );

    // The whole set of the new CA.
    new.issue(&identity, &files);
    let taken_up = async {
        while get(&mut served.files(&new_client()), path("x")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, taken_up).await.expect("taken up");
    assert!(get(&mut served.files(&old.channels(&operator("other"))), path("x")).await.is_err());

    // The stream saw none of this: it has every number.
    for n in 0..100_u64 {
        let message = tokio::time::timeout(SOON, stream.message()).await.expect("in time").unwrap().unwrap();
        assert_eq!(message.resume_token, n.to_string());
    }
    watch.begin();
    served.end().await;
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends with a status"),
            Err(end) => break end,
        }
    };
    assert_eq!(status::read(&end).reason, Reason::Draining);
    assert_eq!(Identity::parse(&identity.uri(DOMAIN), DOMAIN), Ok(identity));
}

//! Connections: how many, for how long, and what ends them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

use super::identity::{Caller, Who};
use super::{Edge, limits, routes};

/// What to wait when the system gives no connection: it is out of files or memory, and somebody must close something.
const PAUSE: Duration = Duration::from_millis(200);

/// Slots that connections take.
struct Slots {
    handshakes: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
    devices: Arc<Semaphore>,
}

pub(super) async fn accept(
    edge: Edge,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send,
) {
    let limits = edge.0.limits;
    let slots = Arc::new(Slots {
        handshakes: Arc::new(Semaphore::new(limits.handshakes)),
        anonymous: Arc::new(Semaphore::new(limits.anonymous)),
        devices: Arc::new(Semaphore::new(limits.connections)),
    });
    let router = routes::router(edge.clone());
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            (stream, address, handshake) = next(&listener, &slots) => {
                let serve = serve(edge.clone(), router.clone(), stream, address, handshake, Arc::clone(&slots));
                connections.spawn(serve);
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    edge.0.stopping.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// The next connection. Nothing is lost when this is broken off.
async fn next(
    listener: &TcpListener,
    slots: &Slots,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // never closed, so there always is one
    let handshake = Arc::clone(&slots.handshakes).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, address)) => return (stream, address, handshake),
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(
    edge: Edge,
    router: Router,
    stream: TcpStream,
    address: SocketAddr,
    handshake: Option<OwnedSemaphorePermit>,
    slots: Arc<Slots>,
) {
    // what fails here breaks the connection soon enough
    let _ = stream.set_nodelay(true);
    let accepted = TlsAcceptor::from(Arc::clone(&edge.0.tls)).accept(stream);
    let stream = match tokio::time::timeout(limits::HANDSHAKE, accepted).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%address, ?error, "a handshake failed");
            return;
        }
        Err(_) => return,
    };
    drop(handshake);
    let chain = stream.get_ref().1.peer_certificates();
    let caller = Caller::new(&edge, chain, address.ip().to_canonical(), Timestamp::now());
    let (slot, own) = match &caller.who {
        Who::Device(peer) => (&slots.devices, Some(peer.member.allowance().connection())),
        _ => (&slots.anonymous, None),
    };
    let (Ok(_slot), None | Some(Some(_))) = (Arc::clone(slot).try_acquire_owned(), &own) else {
        tracing::warn!(%address, who = ?caller.who, "too many connections");
        return;
    };
    run(&edge, router, stream, Arc::new(caller)).await;
}

async fn run(edge: &Edge, router: Router, stream: TlsStream<TcpStream>, caller: Arc<Caller>) {
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let who = Arc::clone(&caller);
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&caller));
        request
    });
    let builder = builder(is_http2);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let (ended, mut stopping) = (ended(edge, &who.who), edge.0.stopping.subscribe());
    tokio::pin!(served, ended);
    let mut draining = false;
    loop {
        tokio::select! {
            done = served.as_mut() => {
                if let Err(error) = done {
                    tracing::debug!(address = %who.address, ?error, "a connection broke");
                }
                return;
            }
            // dropped: nothing more is read or written
            () = ended.as_mut() => return,
            _ = stopping.wait_for(|stop| *stop), if !draining => {
                draining = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Returns when the connection must end: at the moment a device is revoked or its certificate expires.
async fn ended(edge: &Edge, who: &Who) {
    let Who::Device(peer) = who else {
        return tokio::time::sleep(edge.0.limits.anonymous_life).await;
    };
    let left = peer.expires.duration_since(Timestamp::now());
    let expired = tokio::time::sleep(left.try_into().unwrap_or(Duration::ZERO));
    tokio::select! {
        () = peer.member.ended() => {}
        () = expired => {}
    }
}

/// What ALPN settled is what is spoken: there is no preface to wait for.
fn builder(is_http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HANDSHAKE)
        .max_buf_size(limits::HEADER_BYTES as usize);
    let (interval, timeout) = limits::KEEP_ALIVE;
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(interval)
        .keep_alive_timeout(timeout)
        .max_concurrent_streams(limits::STREAMS)
        .max_header_list_size(limits::HEADER_BYTES)
        .max_send_buf_size(64 << 10);
    if is_http2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    }
}

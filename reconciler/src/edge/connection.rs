//! Connections: their number, their duration, and what ends them.

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
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

use super::identity::{Caller, ClientIdentity};
use super::slots::Slot;
use super::{Edge, limits, routes};

/// How long to wait when the system cannot accept a connection: it is out of files or memory until something is closed.
const PAUSE: Duration = Duration::from_millis(200);
/// The name of that failure.
const ACCEPTED: &str = "accepting a connection";

/// Shortest and longest wait between two checks whether a device's certificate has expired, because clocks are set.
const MOMENT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_secs(3600);

pub(super) async fn accept(
    edge: Edge,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send,
) {
    let router = routes::router(edge.clone());
    let mut connections = JoinSet::new();
    {
        let next = next(&edge, &listener);
        tokio::pin!(stop, next);
        loop {
            tokio::select! {
                () = &mut stop => break,
                (stream, address, handshake) = &mut next => {
                    let serve = serve(edge.clone(), router.clone(), stream, address, handshake);
                    connections.spawn(serve);
                    next.set(self::next(&edge, &listener));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
    drop(listener);
    edge.0.stopping.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// Accepts the next connection once there is a slot for its handshake; others wait in the kernel's queue.
async fn next(edge: &Edge, listener: &TcpListener) -> (TcpStream, SocketAddr, Option<Slot>) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                edge.0.store.failures().worked(ACCEPTED);
                return (stream, address, edge.0.handshakes.wait().await);
            }
            Err(error) => {
                let failures = edge.0.store.failures();
                failures.failed(ACCEPTED, &error.to_string(), Timestamp::now());
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
    handshake: Option<Slot>,
) {
    let Some(mut handshake) = handshake else {
        return;
    };
    // if this fails, the connection will break anyway
    let _ = stream.set_nodelay(true);
    let accepted = TlsAcceptor::from(Arc::clone(&edge.0.tls)).accept(stream);
    let accepted = tokio::time::timeout(edge.0.limits.handshake, accepted);
    let accepted = tokio::select! {
        accepted = accepted => accepted,
        () = handshake.lost() => return,
    };
    let stream = match accepted {
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
    let too_many = || {
        if let Some(skipped) = caller.lines(&edge).admit() {
            tracing::warn!(device = caller.name(), from = %caller.address, skipped, "too many connections");
        }
    };
    if let ClientIdentity::Device(peer) = &caller.who {
        let own = peer.member.allowance().connection();
        let slot = Arc::clone(&edge.0.devices).try_acquire_owned();
        let (Some(_own), Ok(_slot)) = (own, slot) else {
            return too_many();
        };
        run(&edge, router, stream, Arc::new(caller)).await;
    } else {
        let Some(mut slot) = edge.0.anonymous.take().await else {
            return too_many();
        };
        tokio::select! {
            () = run(&edge, router, stream, Arc::new(caller)) => {}
            () = slot.lost() => {}
        }
    }
}

async fn run(edge: &Edge, router: Router, stream: TlsStream<TcpStream>, caller: Arc<Caller>) {
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let who = Arc::clone(&caller);
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&caller));
        request
    });
    let builder = builder(is_http2, edge.0.limits.handshake);
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
            // dropping the connection closes it at once
            () = ended.as_mut() => return,
            () = who.ignores_refusals() => {
                if let Some(skipped) = who.lines(edge).admit() {
                    tracing::warn!(device = who.name(), from = %who.address, skipped, "closed a connection that kept asking without waiting for answers");
                }
                return;
            }
            _ = stopping.wait_for(|stop| *stop), if !draining => {
                draining = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Returns when the connection must end: at the moment a device is revoked or its certificate expires.
async fn ended(edge: &Edge, who: &ClientIdentity) {
    let ClientIdentity::Device(peer) = who else {
        return tokio::time::sleep(edge.0.limits.anonymous_life).await;
    };
    let expired = async {
        while peer.check(edge, Timestamp::now()).is_ok() {
            let left = peer.expires.duration_since(Timestamp::now());
            // a clock that is in doubt may be set at any time
            let left = Duration::try_from(left)
                .unwrap_or_default()
                .clamp(MOMENT, LOOK);
            tokio::time::sleep(left).await;
        }
    };
    tokio::select! {
        () = peer.member.ended() => {}
        () = expired => {}
    }
}

/// The HTTP version is the one that ALPN selected, so there is no need to wait for a preface.
fn builder(is_http2: bool, headers: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(headers)
        .max_buf_size(limits::HEADER_BYTES as usize);
    let (interval, timeout) = limits::KEEP_ALIVE;
    let (of_request, of_connection) = limits::WINDOWS;
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(interval)
        .keep_alive_timeout(timeout)
        .max_concurrent_streams(limits::STREAMS)
        .max_header_list_size(limits::HEADER_BYTES)
        .initial_stream_window_size(of_request)
        .initial_connection_window_size(of_connection)
        .max_send_buf_size(64 << 10);
    if is_http2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    }
}

//! DNS: the sandbox asks the gateway, the daemon asks the host's resolver on the host's LAN.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use garth_network::{Lease, NetworkConfig};

use crate::world::{World, id, inside, open, world};

const RESOLVER: &str = "192.168.50.1";

const PATIENCE: Duration = Duration::from_secs(10);

fn question(id: u8) -> Vec<u8> {
    let mut message = vec![id, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(b"\x07example\x03com\x00\x00\x01\x00\x01");
    message
}

/// The question with 192.0.2.77 as its answer.
fn answer(question: &[u8]) -> Vec<u8> {
    let mut message = question.to_vec();
    (message[2], message[3], message[7]) = (0x81, 0x80, 1);
    message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
    message
}

/// A resolver in the outside world, over UDP and TCP.
fn resolve(netns: &OwnedFd) {
    let (udp, tcp) =
        inside(netns, || (UdpSocket::bind((RESOLVER, 53)).unwrap(), TcpListener::bind((RESOLVER, 53)).unwrap()));
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            // First an answer to another question, which must not be passed on.
            let _ = udp.send_to(&answer(&question(buffer[0].wrapping_add(1))), from);
            let _ = udp.send_to(&answer(&buffer[..length]), from);
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let asked = receive(&mut stream);
            frame(&mut stream, &answer(&asked));
        }
    });
}

fn frame(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(&[&(message.len() as u16).to_be_bytes(), message].concat()).unwrap();
}

fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

fn with_resolver(test: &str) -> Option<World> {
    let mut world = world(test)?;
    world.network = open(&world.host, config(&world));
    Some(world)
}

fn config(world: &World) -> NetworkConfig {
    let upstream = Some(vec![SocketAddr::new(RESOLVER.parse().unwrap(), 53)]);
    NetworkConfig { upstream, ..NetworkConfig::new(world.data.path(), "t1") }
}

fn ask_udp(lease: &Lease, question: &[u8]) -> Vec<u8> {
    let socket = asker(lease);
    socket.send(question).unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

fn asker(lease: &Lease) -> UdpSocket {
    let to: (IpAddr, u16) = (lease.nameserver, 53);
    let socket = inside(&lease.netns, || UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn names_are_resolved_by_the_resolver_of_the_host() {
    let Some(world) = with_resolver("names_are_resolved_by_the_resolver_of_the_host") else { return };
    resolve(&world.outside);
    let lease = world.network.lease(id()).unwrap();
    assert_eq!(ask_udp(&lease, &question(7)), answer(&question(7)));
    let mut stream = inside(&lease.netns, || TcpStream::connect((lease.nameserver, 53)).unwrap());
    for number in [8, 9] {
        frame(&mut stream, &question(number));
        assert_eq!(receive(&mut stream), answer(&question(number)));
    }
}

#[test]
fn without_a_resolver_the_answer_is_a_failure_and_not_silence() {
    let Some(world) = with_resolver("without_a_resolver_the_answer_is_a_failure_and_not_silence") else { return };
    let lease = world.network.lease(id()).unwrap();
    let answer = ask_udp(&lease, &question(7));
    assert_eq!((answer[0], answer[3] & 0xf), (7, 2));
}

#[test]
fn dynamic_updates_do_not_reach_the_resolver() {
    let Some(world) = with_resolver("dynamic_updates_do_not_reach_the_resolver") else { return };
    resolve(&world.outside);
    let lease = world.network.lease(id()).unwrap();
    let mut update = question(7);
    update[2] = 5 << 3;
    assert_eq!(ask_udp(&lease, &update)[3] & 0xf, 4);
}

#[test]
fn a_question_during_a_restart_of_the_daemon_is_not_refused() {
    let Some(mut world) = with_resolver("a_question_during_a_restart_of_the_daemon_is_not_refused") else { return };
    resolve(&world.outside);
    let sandbox = id();
    let lease = world.network.lease(sandbox).unwrap();
    let socket = asker(&lease);
    let config = config(&world);
    drop(world.network);
    socket.send(&question(7)).unwrap();
    socket.set_read_timeout(Some(crate::world::PATIENCE)).unwrap();
    let error = socket.recv(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "a timeout, not a refusal: {error}");

    world.network = open(&world.host, config);
    assert!(world.network.recover(sandbox, &lease.record()).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(&question(8)).unwrap();
    assert!(socket.recv(&mut [0; 512]).is_ok());
}

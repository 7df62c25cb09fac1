//! Frames as they go over the wire. The server's are not masked (RFC 6455 §5.1), so the bytes are the same for every
//! socket: made once, kept once, and written from where they are.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::str::Utf8Error;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// FIN and the opcode of text (RFC 6455 §5.2).
const TEXT: u8 = 0x81;
const HEADER_BYTES_MAX: usize = 10;

/// The whole of a text message.
///
/// # Errors
/// It is not text.
pub(crate) fn encode(message: &[u8]) -> Result<Bytes, Utf8Error> {
    std::str::from_utf8(message)?;
    let mut wire = BytesMut::with_capacity(HEADER_BYTES_MAX + message.len());
    wire.put_u8(TEXT);
    match (u8::try_from(message.len()), u16::try_from(message.len())) {
        (Ok(len @ 0..=125), _) => wire.put_u8(len),
        (_, Ok(len)) => {
            wire.put_u8(126);
            wire.put_u16(len);
        }
        _ => {
            wire.put_u8(127);
            wire.put_u64(message.len() as u64);
        }
    }
    wire.put_slice(message);
    Ok(wire.freeze())
}

/// Frames that are written together, without being copied together.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    queue: VecDeque<Bytes>,
    bytes: usize,
}

impl Frames {
    pub(crate) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.queue.push_back(frame);
    }
}

impl Buf for Frames {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.queue.front().map_or(&[], |frame| frame)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.queue);
        filled.map(|(slice, frame)| *slice = IoSlice::new(frame)).count()
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(frame) = self.queue.front_mut() {
            if written < frame.len() {
                return frame.advance(written);
            }
            written -= frame.len();
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use futures_util::StreamExt;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn what_is_encoded_is_read_as_it_was() {
        // A small pipe, so that frames are written in pieces.
        let (mut server, client) = tokio::io::duplex(100);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let texts: Vec<_> = [0, 1, 125, 126, 65_535, 65_536].map(|n| "x".repeat(n)).into();
        let mut frames = Frames::default();
        for text in &texts {
            frames.push(encode(text.as_bytes()).unwrap());
        }
        let writing = tokio::spawn(async move { server.write_all_buf(&mut frames).await });
        for text in texts {
            assert_eq!(client.next().await.unwrap().unwrap(), Message::text(text));
        }
        writing.await.unwrap().unwrap();
        assert!(encode(&[0xff]).is_err());
    }
}

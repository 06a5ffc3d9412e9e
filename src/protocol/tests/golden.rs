//! The bytes of every frame, and how frames are cut out of a stream.

use super::super::limit::MAX_FRAME_BYTES;
use super::super::*;
use super::{bare, full, hex, read, written};
use bytes::BytesMut;

#[test]
fn every_type_of_frame_is_among_the_golden_ones() {
    let types: Vec<_> = full().iter().map(Frame::frame_type).collect();
    assert_eq!(types, FrameType::ALL);
}

/// The bytes of [`full`]. Changing one breaks every client there is.
const GOLDEN_FULL: [&str; 22] = [
    // MsgR
    "0000006a010186a17101a17002a17403a165c408656e76656c6f7065a173c440aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa168ad70\
         6f7374686f7573653a2f2f78",
    // AckR
    "00000031010284a17101a169c41011111111111111111111111111111111a16492920105920909a1789282a17307a178a26e\
         6f81a17308",
    // HelloR
    "0000006301038aa17601a172a572656c6179a16402a16dad61667465725f6261636b6c6f67a166c42002020202020202020202\
         02020202020202020202020202020202020202020202a163cd0100a162ce00400000a174cd7530a169a5746f6b656ea1\
         67a474657374",
    // WhereR
    "00000062010482a17101a16c9185a166c4200101010101010101010101010101010101010101010101010101010101010101\
         a174c4200303030303030303030303030303030303030303030303030303030303030303a16cc40805060708090a0b0ca161\
         01a16209",
    // CloseR
    "0000008d010582a17101a16c9282a174c4200303030303030303030303030303030303030303030303030303030303030303\
         a16cc40805060708090a0b0c83a166c4200101010101010101010101010101010101010101010101010101010101010101a1\
         74c4200303030303030303030303030303030303030303030303030303030303030303a16cc40805060708090a0b0c",
    // StatusR
    "00000028010682a17101a166c4200101010101010101010101010101010101010101010101010101010101010101",
    // PageR
    "00000070010788a17101a16fa66e6577657374a1634da166c420010101010101010101010101010101010101010101010101\
         0101010101010101a16ecd01f4a162ce00100000a169c41011111111111111111111111111111111a16b82a1649292010592\
         0909a1789282a17307a178a26e6f81a17308",
    // PolicyR
    "00000081010882a17101a16384a16da8636f6e7461637473a16491c420010101010101010101010101010101010101010101\
         0101010101010101010101a16191c4200202020202020202020202020202020202020202020202020202020202020202a162\
         91c4200303030303030303030303030303030303030303030303030303030303030303",
    // MsgA
    "00000043020184a17101a16302a16b01a17684a16f03a172a772656675736564a178a26e6fa168c420090909090909090909\
         0909090909090909090909090909090909090909090909",
    // AckA
    "00000004020281a17101",
    // HelloA
    "00000085020388a17601a169c41011111111111111111111111111111111a164a46469736ba177cf0004000000000000a173\
         86a16e03a162cd0190a16fcd03e8a177cd07d0a1669183a166c4200101010101010101010101010101010101010101010101\
         010101010101010101a16e02a162cd012ca16dc3a162ce00100000a163cd0100a167a474657374",
    // WhereA
    "0000006a020482a17101a1729184a16e09a17508a16492920101920303a1789283a16102a16202a17684a16f03a172a77265\
         6675736564a178a26e6fa168c420090909090909090909090909090909090909090909090909090909090909090983a16104\
         a16206a17682a16f02a16dc3",
    // CloseA
    "00000004020581a17101",
    // StatusA
    "0000004c020682a17101a17386a16e03a162cd0190a16fcd03e8a177cd07d0a1669183a166c4200101010101010101010101\
         010101010101010101010101010101010101010101a16e02a162cd012ca16dc3",
    // PageA
    "00000074020785a17101a16d9185a173cf0000010000000000a174cdea60a16102a165c408656e76656c6f7065a167c440aa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaa16305a17206a165c3",
    // PolicyA
    "0000005d020883a17101a17083a16da6616e796f6e65a16191c4200202020202020202020202020202020202020202020202\
         020202020202020202a16291c4200303030303030303030303030303030303030303030303030303030303030303a178c3",
    // MsgN
    "00000064030185a173cf0000010000000000a174cdea60a16102a165c408656e76656c6f7065a167c440aaaaaaaaaaaaaaaa\
         aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
         aaaaaaaaaaaa",
    // AckN
    "000000ae030285a166c4200101010101010101010101010101010101010101010101010101010101010101a174c420030303\
         0303030303030303030303030303030303030303030303030303030303a16cc408ffffffffffffffffa16491920101a17892\
         83a16102a16202a17684a16f03a172a772656675736564a178a26e6fa168c420090909090909090909090909090909090909\
         090909090909090909090909090983a16104a16206a17682a16f02a16dc3",
    // OpenN
    "0000000a030381a16ba67375626d6974",
    // GoawayN
    "00000005030481a161ccfa",
    // AgainN
    "00000001030580",
    // NopN
    "00000001830180",
];

/// The bytes of [`bare`].
const GOLDEN_BARE: [&str; 20] = [
    // MsgR
    "0000000e010184a17100a17000a17400a165c400",
    // AckR
    "00000018010282a17100a169c41011111111111111111111111111111111",
    // HelloR
    "00000021010387a17601a172a470656572a16400a16da761745f6f6e6365a16300a16200a17400",
    // WhereR
    "00000007010482a17100a16c90",
    // CloseR
    "00000007010582a17100a16c90",
    // StatusR
    "00000004010681a17100",
    // PageR
    "00000027010785a17100a16fa66f6c64657374a16e00a16200a169c41011111111111111111111111111111111",
    // PolicyR
    "00000004010881a17100",
    // MsgA
    "0000000e020183a17101a16b00a164a46469736b",
    // MsgA
    "0000001c020186a17101a16b00a164a66d656d6f7279a175c3a17405a17681a16f01",
    // MsgA
    "0000000a020183a17101a16b02a16c04",
    // MsgA
    "00000019020184a17101a16b03a172aa71756f74615f70616972a161cd03e8",
    // WhereA
    "0000000e020482a17100a1729182a16e00a17500",
    // StatusA
    "0000000d020682a17100a17382a16e00a16200",
    // PageA
    "0000000d020784a17100a16d90a17200a165c2",
    // PolicyA
    "00000004020881a17100",
    // MsgN
    "0000000b030183a17300a17400a165c400",
    // AckN
    "00000031030282a174c4200303030303030303030303030303030303030303030303030303030303030303a16cc408000000\
         0000000000",
    // OpenN
    "0000000a030381a16ba66e6f74696679",
    // OpenN
    "00000008030381a16ba473796e63",
];

#[test]
fn frames_have_their_golden_bytes() {
    let golden = GOLDEN_FULL.iter().chain(&GOLDEN_BARE);
    let frames = [full(), bare()].concat();
    assert_eq!(golden.clone().count(), frames.len());
    for (frame, golden) in frames.iter().zip(golden) {
        assert_eq!(hex(&written(frame)), *golden, "{:?}", frame.frame_type());
        let bytes = data_encoding::HEXLOWER.decode(golden.as_bytes()).unwrap();
        assert_eq!(read(&bytes).as_ref(), Ok(frame));
    }
}

#[test]
fn a_frame_is_read_however_it_is_cut_and_whatever_follows() {
    let frames = [full(), bare()].concat();
    let mut stream = BytesMut::new();
    frames.iter().for_each(|frame| encode(frame, &mut stream));
    for step in [1, 2, 5, 6, 7, 100, 10_000] {
        let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
        for piece in stream.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decode(&mut buffer).unwrap() {
                got.push(frame);
            }
        }
        assert!(got == frames && buffer.is_empty(), "in steps of {step}");
    }
}

#[test]
fn types_that_are_not_known_are_skipped_from_0x8000_on_and_an_error_below() {
    let mut buffer = BytesMut::from(&[0, 0, 0, 2, 0x80, 0, 0xc1, 0xc1, 0, 0, 0, 0, 0xff, 0xff][..]);
    encode(&NopN {}.into(), &mut buffer);
    assert_eq!(decode(&mut buffer), Ok(Some(NopN {}.into())));
    for number in [0, 0x0100, 0x0109, 0x0301 | 0x4000, 0x7fff] {
        // Before its content has come.
        let mut buffer = BytesMut::from(&[&[0, 0, 0, 2][..], &u16::to_be_bytes(number)].concat()[..]);
        assert_eq!(decode(&mut buffer), Err(WireError::UnknownFrame(number)));
    }
    for number in 0..=u16::MAX {
        match FrameType::from_number(number) {
            Ok(Some(frame)) => assert_eq!(frame.number(), number),
            Ok(None) => assert!(number >= FIRST_SKIPPABLE),
            Err(error) => assert!(number < FIRST_SKIPPABLE && error == WireError::UnknownFrame(number)),
        }
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_anything_else_comes() {
    let max = MAX_FRAME_BYTES;
    for length in [max + 1, u32::MAX as usize] {
        let mut buffer = BytesMut::from(&(length as u32).to_be_bytes()[..]);
        assert_eq!(decode(&mut buffer), Err(WireError::FrameTooLong { length, max }));
    }
    let mut buffer = BytesMut::from(&[&(max as u32).to_be_bytes()[..], &[2, 2]].concat()[..]);
    assert_eq!(decode(&mut buffer), Ok(None));
    assert!(buffer.capacity() < 100, "memory is taken only for what has come");
}

#[test]
fn close_codes_have_their_numbers_and_every_wire_error_has_one() {
    let numbers: Vec<_> = CloseCode::ALL.iter().map(|code| code.number()).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x20, 0x21, 0x22, 0x23, 0x24]);
    for code in CloseCode::ALL {
        assert_eq!(CloseCode::from_number(code.number().into()), Some(*code));
    }
    assert_eq!(CloseCode::from_number(0x99), None);
    assert_eq!(CloseCode::from_number(1 << 40), None);
}

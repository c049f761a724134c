//! JPEG 2000, JPEG, JPEG-LS and JPEG XL frames written by other libraries (OpenJPEG 2.5, libjpeg-turbo, liblj92,
//! CharLS and libjxl), with pixels known in closed form, and real files in nine encodings.

use ahi_inference::codec::{FrameFormat, Samples, decode};
use ahi_inference::dicom::p10;
use ahi_inference::error::ErrorKind;
use base64::Engine as _;

use crate::common::shared;

const JPEG_BASELINE: &str = "1.2.840.10008.1.2.4.50";
const JPEG_EXTENDED: &str = "1.2.840.10008.1.2.4.51";
const JPEG_LOSSLESS: &str = "1.2.840.10008.1.2.4.57";
const JPEG_LOSSLESS_SV1: &str = "1.2.840.10008.1.2.4.70";
const JPEG_2000: &str = "1.2.840.10008.1.2.4.90";
const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";
const JPEG_LS_NEAR: &str = "1.2.840.10008.1.2.4.81";
const JPEG_XL: &str = "1.2.840.10008.1.2.4.110";
const JPEG_XL_LOSSY: &str = "1.2.840.10008.1.2.4.112";

const J2K_S16: &str = "/0//UQApAAAAAAAJAAAABgAAAAAAAAAAAAAACQAAAAYAAAAAAAAAAAABjwEB/1IADAAAAAEAAAQEAAH/XAAEQID/ZAAlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAABqAAH/k8P/ACuAQwGE36PuatmW+cOoE1pxQePIc+jEYNBA8rbukHYKrzaq7YKEIjHTppkRgcDg/0mtvz7veOAui/9cfXAyeAZP16RQlCWPSeyK4p7PDf8oAI+YZE4iYH5//9k=";
const J2K_U12: &str = "/0//UQApAAAAAAAJAAAABgAAAAAAAAAAAAAACQAAAAYAAAAAAAAAAAABCwEB/1IADAAAAAEAAAQEAAH/XAAEQGD/ZAAlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAABlAAH/k9/hUBIx5kl8H9PhlFGqbZ7a2p67CrII2BYGzME0wpNhyBR3NfGE58ho1Z0xUp6ssOzeHjDcpaqtd7S74MyVSh13VC1egiDxrtv4GQqQxKNVkV9VVVNogf/Z";
const LOSSLESS_U16_LJ92: &str = "/9j/xAAWAAEBAQAAAAAAAAAAAAAAAAAMDRD/wwALEAAGAAkBABEA/9oACAEAAAYAAMolUSqJVEqiVRKolUS2Oljqx1Y6sdWOrHVjqx1sdLHVjqx1Y6sdWOrHVjrY6WOrHVjqx1Y6sdWOrHWx0sdWOrHVjqx1Y6sdWOtjpY6sdWOrHVjqx1Y6sdT/2Q==";
const LOSSLESS_U12_LJ92: &str = "/9j/xAAWAAEBAQAAAAAAAAAAAAAAAAAMCgv/wwALDAAGAAkBABEA/9oACAEAAAYAAD/6iXIkUS5EmRIolyJMiRHSR0Y6kdIdGOpHRjro64dDHUjpDox1I6MdSOkOiOkjox10dSOjHUjpDox1w6GOpHSHRjqR0h0Y6kdEdJHSHRjqR0Y66OpHRjqA/9k=";
const LOSSLESS_U12: &str = "/9j/4AAQSkZJRgABAQAAAQABAAD/wwALDAAGAAkBAREA/8QAFQABAQAAAAAAAAAAAAAAAAAACwz/2gAIAQEAAQAAn/6iUiSolIkIkqJSJCJKOkiSolIkIkqJSJKiUiQOiolIkIkqJSJKiUiQiSjpIkqJSJCJKiUiQiSolDoqJSJCJKiUiQiSolIko6SJCJKiUiSolIkIkqJf/9k=";
const LOSSLESS_U8: &str = "/9j/4AAQSkZJRgABAQAAAQABAAD/wwALCAAGAAkBAREA/8QAFgABAQEAAAAAAAAAAAAAAAAABQQI/9oACAEBAAEAAM/uuuuuuuu2uuuuuuuu2uuuuuuu4ctdddddddw5a6666667hy1111113Djv/9k=";
const BASELINE_77: &str = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQH/wAALCAAGAAkBAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/9oACAEBAAA/APxnor//2Q==";
const EXTENDED_12: &str = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggLDAsKDAkKCgr/wQALDAAGAAkBAREA/8QAFQABAQAAAAAAAAAAAAAAAAAACAv/xAAjEAABAwMCBwAAAAAAAAAAAAAIBgcJBQoLAAQWGRodW5fa/9oACAEBAAA/ADLbFjEaePO6wdd4+QaGKctJ4De3/K8Si5iPn2qbduzFigTtG3lrtLJqbw4iQyTMNfRCc4UE6VePlhkW0Tq11qEwYKIEusj3st1FyA1OVkd5E0m+x6suvjjscV7It8vi01//2Q==";
// Written by CharLS, libjxl and libjpeg-turbo: the ramps below, and images of 20 rows and 33 columns.
const JLS_U12: &str = "/9j/6AAgU1BJRkYAAgAAAQAAAAYAAAAJChAGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsQAAYACQEBEQD/+AANAf//ABIAQwEUAED/2gAIAQEAAAAAgRJPbGJa7ZdoYmrtF2QXSGLjEhxUe2MRHExiXABxIYfOIF2xh04cMNvDB7ZG68KGJcAHCRhZ4OXbGJfgwwm8ELtFCLwIuyUHnFqNJ3+XYKDHfoxRgDvwYjj/2Q==";
const JLS_U16: &str = "/9j/6AAgU1BJRkYAAgAAAQAAAAYAAAAJChAGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsQAAYACQEBEQD/+AANAf//ABIAQwEUAED/2gAIAQEAAAAAgRJBEkxHURVENRBUP1D0AC6QIlGJCiMoiKISiAofAiUI4ih0ocKGyhooZKGChcYkCNooVKFChMoSKEShAoPKIwjSKDSgwoLKCigkoIKByiIIyigUoEKAygIoBKACf8ohAP/Z";
const JLS_U8: &str = "/9j/6AAgU1BJRkYAAgAAAQAAAAYAAAAJCggGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsIAAYACQEBEQD/2gAIAQEAAAAAgACgAFbtWbFetAwGYWUSQ8BgNzWMI7mGO7MzALFszMql5SqqqpkAAoD/2Q==";
const JLS_NEAR_2: &str = "/9j/6AAgU1BJRkYAAgAAAQAAAAYAAAAJChAGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsQAAYACQEBEQD/+AANAf//ABgATQEiAED/2gAIAQEAAgAAghpVghqWErEHpYSsMgdYhBahWCDlrBD4AtQgxaiWCDFqEGLSKw4xaBB8AWgQQtBLAQ9aBBC0ErEDLOSsQMtVxCzErECLMIRgVmEHgP/Z";
const JXL_U16: &str = "AAAADEpYTCANCocKAAAAFGZ0eXBqeGwgAAAAAGp4bCAAAAAJanhsbAoAAAByanhsY/8KKED8AEWLCAQBAHABSxiLFQolRfUGAICr+EyJlEiJlEiJlEiJlOhtSImUSImUSImUSImUCLGvWxpMiZRIiZRIicQ/uFpQiZRIiZRIiZRIwVvhYk+JlEiJlEiJKL5fwkuJlEiJlEiJlAg=";
const JXL_U8: &str = "/wooQBAUNwIIBAEAiABLOGkYytP9FRQkxVXb8oD6LDMzMxMAAACAZwCAAQAMAHhO";
const JXL_U12: &str = "/wooQBgULQIIBAEATAFLOGoY0tv7KyhIik1qaROQPCPx7SS+/e0kvv3t6LRIYotvJ7FFEtciiS2+ncQWSWzx7ei0SOJaJLHFt5PYIoktvp3EFt9OYovotPh2ElskcS2SCA==";
const JXL_LOSSY: &str = "/wooQJAUNwIAE4gCAOQBtZ8gAAAVKqOMG7yc6/nyQ4fFtI3rDG21bWEJY7O9MEhIOEPmTQX35pG5ezgUUQYVUiAVKOTISJKKhGIjGSMjFSpgADAeKRbRL7wQA/cmshjSkNrSRy7dRmDY/kVhMTJdHP2GXnTKXzCnA9/RZK5ThO/2jVH4rwVUBA==";
const JLS_RUNS: &str = "/9j/6AAgU1BJRkYAAgAAAQAAABQAAAAhChAGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsQABQAIQEBEQD/+AANAf//ABIAQwEUAED/2gAIAQEAAAAAoCwRg3CmGcQYlyrL9pj7IekabqXX7nh83r+H1/X/UJRNHUnTFO1FU+BUVoxRuj1ISjuXi1KqvpnTanJoMWpVXxj2UZl84sSo+SgLswGllapvZUqD0bJYbis8UInwemiuP8kcTomwcs1bf7xyZJcNWTaf7xyVJMMWLZf6acMrpwqRVwRujwyuG+wrbOLRYYWzdYN3F7ocXWjbUOwteYnwysmyodmmI10z7UK2cTNSB5JozWQbqeT7wqRgSpsNQJETu0JKkqM5QJihJapOgJUxY2MUOMzFGs4oa+JxNkALlQAgC9kAYGgBhyAEBcgwbyzDUeQihFqVUwpy6AmrgxPihO0LRHFCXsUaHf7hjFCN0vkEo9H+fKwRmRwphvEOKFXYnwJ5g7FCQVX6RRonSWitGCNl2wGK5HQS1ppuiZgpK9hJl08qVWa0mu2WJ1jr3moLo2cFWGueRMmAkfRdjxfx/Eruda91U9YvD0bYoexOp+zTrP1tmYzRXpXVj8WFAlyxROi1SKXagI3uljkyrEinkpyUssT9+vRslKjOq+ivoDmLvE2J0MRPijJisyiFHwGGxeRldm9BpdV3+kFHfUPNaLSCnxp3ixqHdziSORwrifE+KUz4oRQlCaslTlnxQk6KFgSl4WfRJOpleSWDWbQqVE55WAsD4OwphnHsj1Gt2WPsiZJ07U9Y7vi8/s+P2/dAULRVH0pTNPVHryXt4ev1FgjUuI5XrlhnE23KYD9IckSUKks3kZZqm+xj3ECpBMgAAAAAAAjy2gm5VI4XM+2fqDpPSESRzRJ8rFJ6Mry2U5PUtpPRFaaiLZ+gVC5K5eKEH5/RpANkUiYgIaqqEqVcKNNhhJSoCySbJ0Hs/QEpCxSDLENc/RMi0AylHLQEOCSOLPqoYKwV+8fG6jSfISijRnXokU6Ah3FCKnjTVG2spJY4B1jcldRxrID/2Q==";
const JLS_RUNS_NEAR_3: &str = "/9j/6AAgU1BJRkYAAgAAAQAAABQAAAAhChAGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsQABQAIQEBEQD/+AANAf//ABsAUgEpAED/2gAIAQEAAwAA0DgcFh48Li5s+IyNWrXr999//oUKVKlUqVatevQMMh0QiEUlPMMjFy5ewS2GRiRVWrZhhkxi3dPFeMsIpdBIhMdM4VC4JIWkimGQuEoWk38ZExKFpIhnQmCTukk7BsPJRaJ5MjDzN07kzYeZv2MXDYeSamYy5GHUmq8VlLuFpArUZWHypiR0rKYZVamQIVhMKtMbUBhmEvrkXh1mFfPLIDCpeGGKAUKAQGRApUApcUAqMDqsOTiGQyMRyQ1yOsxcZShQcZZhso/3B4ZEI4mlEjS5QGDiw8JhlfB4UF4g4ZErGVKhkWmTqElllb1ozK4BsoNon0qbIVjbbhrGWzKSR1sBlAhsUiWOJPCBAkSlOMxFX2V4kPlIl1Kr8JPHWxpGLElqBdYhkMqoztQ/GMZcnVQmVtie15VSMVk5Lrn2+XKiRcuZvlh3ghjjN56aa7bxDjnHoZlimCDREg+lg4LC4XCp2FQyGUMrF2ZKmULmKfshUZdpmu1TIUFOAwOBgsHiZMuXffnE4vL2bN27fQ/pUadOpVq1q+1WmMxqNPNdW1JSe01SjWJU/G0rWoF7Nn03c7OwAAAAA0SbrDz5JWqNTKUKuNqyplMm1m1NRymj6bcgI6vMMg1tQm6MtjqYlMrlSgeQ6xpMaQi1AqZSKtTWoVDgAAVohXogqIarDydCan9Uy5ClzEMKlrUVCoxCiEjiimgB9Wq5GsT/2Q==";
const JPEG_12: &str = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAEBAQEBAQEBAQEBAQEBAQIBAQEBAQIBAQECAgICAgICAgIDAwQDAwMDAwICAwQDAwQEBAQEAgMFBQQEBQQEBAT/wQALDAAUACEBAREA/8QAFwABAQEBAAAAAAAAAAAAAAAADAsNDv/EADoQAAEDAgMGAgYHCQAAAAAAAAIBAwQFEgcREwAGCQoLFAgVFxshIjEzFhgZIzRDU1dYZ5akptPU4//aAAgBAQAAPwDi0/lC+nP01KbhGZ+H2PJekx4Djrrm6yLIJxUYfJponGlZG1khIiJHEVH/AMtG3HAUCcpV06Wmzathov1facoxqNTu3bj7nIzEmk46+6Ek2mGy+McNZQzuVG0C5Cy2UB8p106mneXYdR4/h7pwlMkUpsHQ3RijIi68yOrKtGIaljjaPCiLdkjKrquC4BKoM5SHp0dJZ9GPb+HmnHb2Xa626DZ93raHaa3cNp8/JbbdOzX9urpO2VwPV4W6n7te738ixv8ADtlmHKJdO9q02m4R54HUaMK06mR22Poi4+c1oEbiNHJA3Bjr8wrSetRSQ7PeTLZQDykvTuanCqe4ABg1DnLOh0yqTp1U3NfhSaa4y++0AAAHejiHnkiZkpKIiOfxUA8pz07KpR42GE48HI5OUqo02XEgJuMrUSputS4sZScdRxTU0VG1NHUR7K29BUkXZQbykvTtas56NLsGqdDt0Nby/clyb5ZbZr6Wq77PxJ6vb52+/q25bVpfVvP8PP7C/wCu2SA8o7wTOHpH3cw3kDg/qFTaNQ5DLT8uO7Hc7mIqGBgsfKwVbUkEcva88hXC4YqoK5SDgicPJrePcKMmETljcygUlTCZGjuOg84+2bhq3GHNy4ta74aoieSqmyfblMeCRw8nBwsAsHW1RN7aTSM0OGJabRwjVbki5opq4KEiZDkw0IiKAKbKEuUk4JPDzc9C+phBreY29z3EmLLv7LuP1IxZ62j97dnnrPW2ap3VdvsX/AD+yT+ojf6+3//Z";
const JXL_RUNS: &str = "/wqYAEDAoGgRCAQBAKAKSzhqGNLTt2+vqqCwvbvC9v8KCkJG9IQYY7yM8RhjxhjvYqRiJGOkItQY1RiLGOsY7RjpWDbGoIwxZowxXowxYzBuwICIQoSlHZ4w5GDMUUXjpfq0cT2offm0gZH5MIkJeD9Z8WzH9rkYxYSqHURg060wVsyWz0bc6mgZLjq1Fri7BEMIp6wzLi6vWo0/k8tk93Ztg5DEqPdD8JTIYfn7QYUXZKv6/SCdbYBQORMXZLkaaHDsyyYw0k4D5lCMgEg/jWLlcwRo9WFoWTEvecMkoW6q51EyrU9UTkG/yEBFgo609Je0VCWAo4tdSVB5dK3MMCwnziMqESU6EtdyBwAHR8wVpHLdKs5vnH3pVkhoJHDPfCwCPup84kOO9qhuAIrRuB/sSAfgCksLPmFY6ePlh5giUKpMQr3tJVmJGMWulh1knUW0WxnAOJz5czJKxT1bkELVmvyZBZ+mu7UEKRlIGcFLaTa3uzRJ4f4GKKHxi9Gze9TrAGQG9j1yHOwcF4bLNUJHug8DKz1fov+C+ouMC8V6kGf0v/LgbDNuBGvqRGReTWMoAggLMCJL6fJSA4NdTi5J6ZNIKhpJhvQPbFw/OKpjuTCW7+n4S7lsWV3CdpAjuDTI0WC5b00SmYvEFbbdEEnR9H0TzYvJfe7uIJKikGURWUsnzPwCczVFWJByKZcUXA++XTq15m4wDE9zYk86c1e8/Xb2XnJH8+fC5XLogaR4E9XWtm3a/NOWXxjaeFpOLn/0prc+/R3ym8t+5wcIFJ80TlkxTgZsh3enUUufBuG47jR66Cewzc5p6PQL3sv1eFPcS4BLr3wj0+c/QdN2ejUlfQQF7LmW/7BaIgBna3TKBGPcxgsHHwCUYB0JOfQ02LOOhMw4DDwAnYWDfoOlC/6tngNPAyw=";

fn format(bits_allocated: u16, bits_stored: u16, signed: bool) -> FrameFormat {
    FrameFormat { rows: 6, columns: 9, bits_allocated, bits_stored, signed, float: false }
}

fn bytes(base64: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(base64).unwrap()
}

/// Returns pixel values computed from column and row.
fn pixels(value: impl Fn(i32, i32) -> i32) -> Vec<i32> {
    (0..6).flat_map(|y| (0..9).map(move |x| (x, y))).map(|(x, y)| value(x, y)).collect()
}

fn unsigned(values: Vec<i32>) -> Samples {
    Samples::U16(values.into_iter().map(|v| v as u16).collect())
}

fn u16_ramp() -> Samples {
    unsigned(pixels(|x, y| (x * 371 + y * 911) * 7))
}

fn u12_ramp() -> Samples {
    unsigned(pixels(|x, y| ((x * 371 + y * 911) * 7) & 0xFFF))
}

#[test]
fn lossless_frames_of_other_encoders_decode_exactly() {
    let s16 = pixels(|x, y| (x * 37 - y * 91) * 11 - 400);
    let s16 = Samples::I16(s16.into_iter().map(|v| v as i16).collect());
    let u8_ramp = unsigned(pixels(|x, y| (x * 29 + y * 13) % 256));
    for (name, uid, data, format, expected) in [
        ("JPEG 2000, 16 bits signed", JPEG_2000, J2K_S16, format(16, 16, true), s16),
        ("JPEG 2000, 12 bits", JPEG_2000, J2K_U12, format(16, 12, false), u12_ramp()),
        ("JPEG, 16 bits", JPEG_LOSSLESS, LOSSLESS_U16_LJ92, format(16, 16, false), u16_ramp()),
        ("JPEG, 12 bits", JPEG_LOSSLESS, LOSSLESS_U12_LJ92, format(16, 12, false), u12_ramp()),
        ("JPEG SV1, 12 bits", JPEG_LOSSLESS_SV1, LOSSLESS_U12, format(16, 12, false), u12_ramp()),
        ("JPEG SV1, 8 bits", JPEG_LOSSLESS_SV1, LOSSLESS_U8, format(8, 8, false), u8_ramp.clone()),
        ("JPEG-LS, 12 bits", JPEG_LS, JLS_U12, format(16, 12, false), u12_ramp()),
        ("JPEG-LS, 16 bits", JPEG_LS, JLS_U16, format(16, 16, false), u16_ramp()),
        ("JPEG-LS, 8 bits", JPEG_LS, JLS_U8, format(8, 8, false), u8_ramp.clone()),
        ("JPEG-LS with runs", JPEG_LS, JLS_RUNS, wide(12), with_runs()),
        ("JPEG XL, 12 bits", JPEG_XL, JXL_U12, format(16, 12, false), u12_ramp()),
        ("JPEG XL, 16 bits", JPEG_XL, JXL_U16, format(16, 16, false), u16_ramp()),
        ("JPEG XL, 8 bits", JPEG_XL, JXL_U8, format(8, 8, false), u8_ramp.clone()),
        ("JPEG XL with runs", JPEG_XL, JXL_RUNS, wide(12), with_runs()),
        ("JPEG SV1, 8 of 16 bits", JPEG_LOSSLESS_SV1, LOSSLESS_U8, format(16, 8, false), u8_ramp),
    ] {
        let mut data = bytes(data);
        assert!(decode(uid, &data, &format).unwrap() == expected, "{name}");
        data.push(0);
        assert!(decode(uid, &data, &format).unwrap() == expected, "{name} with padding");
    }
}

fn wide(bits_stored: u16) -> FrameFormat {
    FrameFormat {
        rows: 20,
        columns: 33,
        bits_allocated: 16,
        bits_stored,
        signed: false,
        float: false,
    }
}

/// Returns pixel values of an image of 20 rows and 33 columns.
fn wide_pixels(value: impl Fn(i32, i32) -> i32) -> Vec<i32> {
    (0..20).flat_map(|y| (0..33).map(move |x| (x, y))).map(|(x, y)| value(x, y)).collect()
}

fn with_runs() -> Samples {
    unsigned(wide_pixels(|x, y| {
        let flat = ((5..13).contains(&y) && (10..26).contains(&x)) || y == 15;
        if flat { 9 } else { (x * x * 3 + y * y * 5 + (x * y % 7) * 40) & 0xFFF }
    }))
}

fn values(samples: &Samples) -> Vec<i32> {
    match samples {
        Samples::I16(v) => v.iter().map(|x| (*x).into()).collect(),
        Samples::U16(v) => v.iter().map(|x| (*x).into()).collect(),
        other => panic!("{other:?}"),
    }
}

fn largest_difference(a: &[i32], b: &[i32]) -> i32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).max().unwrap()
}

#[test]
fn lossy_frames_are_as_near_as_their_encoder_promised() {
    let decoded =
        |uid, data, format: FrameFormat| values(&decode(uid, &bytes(data), &format).unwrap());
    let near = decoded(JPEG_LS_NEAR, JLS_NEAR_2, format(16, 12, false));
    assert_eq!(largest_difference(&near, &values(&u12_ramp())), 2);
    let near = decoded(JPEG_LS_NEAR, JLS_RUNS_NEAR_3, wide(12));
    assert_eq!(largest_difference(&near, &values(&with_runs())), 3);
    // The result of CharLS: the sum of its values, and their sum weighted by position.
    let by_place = near.iter().zip(1_i64..).map(|(v, at)| i64::from(*v) * at).sum::<i64>();
    assert_eq!((near.iter().sum::<i32>(), by_place), (836_387, 324_177_256));

    let ramp = wide_pixels(|x, y| 40 * x + 60 * y + (x * y % 11) * 3);
    let jpeg = decoded(JPEG_EXTENDED, JPEG_12, wide(12));
    assert!(largest_difference(&jpeg, &ramp) <= 4);

    // Decoded by libjxl.
    let libjxl = [
        [0, 32, 62, 88, 117, 145, 171, 201, 232],
        [10, 42, 73, 99, 129, 157, 193, 213, 242],
        [26, 57, 87, 114, 142, 170, 197, 232, 0],
        [39, 69, 100, 127, 156, 182, 215, 240, 7],
        [52, 83, 110, 138, 169, 199, 224, 255, 24],
        [63, 93, 121, 148, 181, 215, 238, 8, 36],
    ];
    let jxl = decoded(JPEG_XL_LOSSY, JXL_LOSSY, format(8, 8, false));
    assert!(largest_difference(&jxl, libjxl.as_flattened()) <= 1, "{jxl:?}");
}

#[test]
fn real_files_of_nine_encodings_have_one_voxel_array() {
    let Some(archive) = shared("data/real/transfer_syntaxes_mr.zip") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::open(archive).unwrap();
    zip::ZipArchive::new(file).unwrap().extract(folder.path()).unwrap();
    let mut arrays = Vec::new();
    for path in p10::list_files(folder.path()).unwrap() {
        let instance = p10::read(&path).unwrap();
        let format = FrameFormat::from_dataset(&instance.dataset).unwrap();
        let decoded = decode(&instance.transfer_syntax, &instance.frames[0], &format);
        arrays.push(decoded.unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    }
    assert_eq!(arrays.len(), 9);
    assert!(arrays.iter().all(|array| *array == arrays[0]));
    let (low, high) = arrays[0].min_max().unwrap();
    assert!(low < high);
}

#[test]
fn signed_pixels_in_unsigned_codestreams_keep_their_bits() {
    // JPEG lossless has no sign, and many JPEG 2000 encoders leave it out.
    let words = u12_ramp();
    let Samples::U16(words) = words else { unreachable!() };
    let expected = Samples::I16(words.iter().map(|w| ((w << 4) as i16) >> 4).collect());
    for (uid, data) in [(JPEG_LOSSLESS_SV1, LOSSLESS_U12), (JPEG_2000, J2K_U12)] {
        assert_eq!(decode(uid, &bytes(data), &format(16, 12, true)).unwrap(), expected, "{uid}");
        // With 14 bits stored, twelve in the codestream leave the sign open.
        assert!(decode(uid, &bytes(data), &format(16, 14, true)).is_err(), "{uid}");
    }
}

#[test]
fn jpeg_baseline_and_twelve_bits_decode() {
    let flat = unsigned(vec![77; 54]);
    assert_eq!(decode(JPEG_BASELINE, &bytes(BASELINE_77), &format(8, 8, false)).unwrap(), flat);
    assert_eq!(decode(JPEG_EXTENDED, &bytes(BASELINE_77), &format(8, 8, false)).unwrap(), flat);
    // Decoded by libjpeg-turbo.
    let libjpeg = [
        [0, 2598, 1098, 3691, 2199, 697, 3291, 1797, 296],
        [2284, 781, 3380, 1880, 381, 2978, 1482, 4074, 2577],
        [463, 3062, 1562, 66, 2666, 1160, 3762, 2260, 762],
        [2749, 1250, 3849, 2343, 843, 3444, 1943, 449, 3043],
        [931, 3525, 2028, 530, 3127, 1633, 129, 2725, 1228],
        [3211, 1715, 218, 2812, 1314, 3908, 2412, 912, 3509],
    ];
    let twelve = decode(JPEG_EXTENDED, &bytes(EXTENDED_12), &format(16, 12, false)).unwrap();
    assert!(largest_difference(&values(&twelve), libjpeg.as_flattened()) <= 1, "{twelve:?}");
    // Eight bits cannot hold twelve.
    assert!(decode(JPEG_EXTENDED, &bytes(EXTENDED_12), &format(8, 8, false)).is_err());
    // A progressive frame uses a different process.
    let mut progressive = bytes(EXTENDED_12);
    let at = progressive.windows(2).position(|w| w == [0xFF, 0xC1]).unwrap();
    progressive[at + 1] = 0xC2;
    let e = decode(JPEG_EXTENDED, &progressive, &format(16, 12, false)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::UnsupportedPixelData);
}

#[test]
fn truncated_and_mismatched_frames_are_refused() {
    for (uid, data, format) in [
        (JPEG_2000, J2K_S16, format(16, 16, true)),
        (JPEG_LOSSLESS, LOSSLESS_U16_LJ92, format(16, 16, false)),
        (JPEG_LOSSLESS_SV1, LOSSLESS_U12, format(16, 12, false)),
        (JPEG_BASELINE, BASELINE_77, format(8, 8, false)),
        (JPEG_EXTENDED, EXTENDED_12, format(16, 12, false)),
        (JPEG_LS, JLS_U12, format(16, 12, false)),
        (JPEG_LS_NEAR, JLS_NEAR_2, format(16, 12, false)),
        (JPEG_XL, JXL_U16, format(16, 16, false)),
        (JPEG_XL_LOSSY, JXL_LOSSY, format(8, 8, false)),
    ] {
        let whole = bytes(data);
        for cut in 0..whole.len() {
            let e = decode(uid, &whole[..cut], &format).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::CorruptFrame, "{uid} cut at {cut}");
        }
        for other in [FrameFormat { rows: 7, ..format }, FrameFormat { columns: 8, ..format }] {
            let e = decode(uid, &whole, &other).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::CorruptFrame, "{uid} as {other:?}");
        }
        for bit in 0..8 * whole.len() {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(samples) = decode(uid, &damaged, &format) {
                assert_eq!(samples.len(), format.pixels(), "{uid} bit {bit}");
            }
        }
    }
}

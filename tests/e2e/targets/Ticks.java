// SPDX-License-Identifier: GPL-2.0-or-later
import java.util.HashMap;

/** Allocates in four threads, so that there is garbage to collect; ticks. */
public class Ticks {
	static void allocate() {
		HashMap<Integer, byte[]> kept = new HashMap<>();
		for (int n = 0;; n++) {
			kept.put(n % 1000, new byte[n % 8192]);
			if (n % 5000 == 0) {
				try {
					Thread.sleep(10);
				} catch (InterruptedException e) {
					throw new RuntimeException(e);
				}
			}
		}
	}

	public static void main(String[] arguments) throws Exception {
		for (int i = 0; i < 4; i++) {
			Thread thread = new Thread(Ticks::allocate);
			thread.setDaemon(true);
			thread.start();
		}
		for (;;) {
			System.out.println("tick");
			System.out.flush();
			Thread.sleep(5);
		}
	}
}

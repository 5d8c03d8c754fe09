import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Clicks through Java's HttpClient, and says what came of it.
 *
 * <p>{@code java Sender.java URL SHAPE CLICKS}. SHAPE stream: the body is a stream, so that its
 * length is not known and it is sent in chunks; small: of two bytes; large: of 200 KB.
 */
class Sender {
    private static final int IN_FLIGHT = 20;

    private static BodyPublisher body(String shape) {
        return switch (shape) {
            case "stream" -> BodyPublishers.ofInputStream(
                    () -> new ByteArrayInputStream("{}".getBytes()));
            case "large" -> BodyPublishers.ofByteArray(new byte[200 << 10]);
            default -> BodyPublishers.ofString("{}");
        };
    }

    public static void main(String[] arguments) throws Exception {
        var uri = URI.create(arguments[0]);
        var sent = Integer.parseInt(arguments[2]);
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        var free = new Semaphore(IN_FLIGHT);
        var answered = new AtomicInteger();
        for (var i = 0; i < sent; i++) {
            free.acquire();
            var request = HttpRequest.newBuilder(uri).POST(body(arguments[1])).build();
            client.sendAsync(request, BodyHandlers.ofString()).whenComplete((answer, error) -> {
                if (error != null) {
                    System.err.println(error);
                } else if (answer.statusCode() != 200) {
                    System.err.println("answered " + answer.statusCode());
                } else {
                    answered.incrementAndGet();
                }
                free.release();
            });
        }
        free.acquire(IN_FLIGHT);
        System.out.printf("{\"sent\": %d, \"answered\": %d}%n", sent, answered.get());
        System.exit(0); // the client's own threads would go on
    }
}

-- What a real database holds beside plain tables: bytes that are no text, computed columns, views, routines, triggers
-- and events.
CREATE TABLE shop_odd (
    id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
    bytes LONGBLOB,
    words TEXT CHARACTER SET latin1,
    price DECIMAL(20, 6),
    moment DATETIME(6),
    bits BIT(13),
    doubled DECIMAL(22, 6) AS (price * 2) STORED,
    nothing INT NULL
) ENGINE = InnoDB;
INSERT INTO shop_odd (bytes, words, price, moment, bits) VALUES
    (UNHEX(CONCAT('00FF0A0D275C1A', REPEAT('DEADBEEF', 5000))), 'Grüße', 12345678901234.567891, '2026-01-02 03:04:05.678901', b'1010101010101'),
    ('', '', 0, '1970-01-01 00:00:01', b'0'),
    (NULL, NULL, NULL, NULL, NULL);
CREATE TABLE shop_log (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(200)) ENGINE = MyISAM;
CREATE TABLE `odd ``name``; -- x` (`a b` INT) ENGINE = InnoDB;
INSERT INTO `odd ``name``; -- x` VALUES (1), (2);
CREATE VIEW shop_dear AS SELECT id, price FROM shop_odd WHERE price > 100;
DELIMITER //
CREATE TRIGGER shop_odd_logged AFTER INSERT ON shop_odd FOR EACH ROW
BEGIN
    INSERT INTO shop_log (what) VALUES (CONCAT('added ', NEW.id));
END//
CREATE PROCEDURE shop_count(OUT total INT)
BEGIN
    SELECT COUNT(*) INTO total FROM shop_odd;
END//
CREATE FUNCTION shop_twice(x INT) RETURNS INT DETERMINISTIC RETURN x * 2//
CREATE EVENT shop_tidy ON SCHEDULE EVERY 1 DAY STARTS '2026-01-01 00:00:00' DO DELETE FROM shop_log WHERE id < 0//
DELIMITER ;
INSERT INTO shop_odd (words) VALUES ('logged by the trigger');
